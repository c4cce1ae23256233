/** The options that select a lock (NAME, --dir, --file, --store) and the store that holds it. */
import { printable } from "../../errors.ts";
import { checkName } from "../../name.ts";
import { absolute, readText } from "../../os/files.ts";
import { FileStore } from "../../store/file/file-store.ts";
import { LazyStore } from "../../store/lazy-store.ts";
import { checkStoreUrl, directoryOf } from "../../store/open-store.ts";
import type { Store } from "../../store/store.ts";
import { defineArgs } from "./define.ts";
import { UsageError } from "./exit-status.ts";

export const NAME = defineArgs({ name: { type: "positional", description: "the lock's name" } });

export const STORE = defineArgs({
  store: {
    type: "string",
    valueHint: "URL",
    description: "lock in Redis, PostgreSQL, MySQL or etcd",
  },
  "store-file": {
    type: "string",
    valueHint: "FILE",
    description: "read the URL for --store from this file",
    details: "The URL then appears in no argument list.",
  },
});

/** A directory of lock files, or a store. */
export const DIR = defineArgs({
  dir: {
    type: "string",
    valueHint: "DIR",
    description: "directory of the lock files",
    details: "Default: `EXCLUSIVE_DIR`, else `/var/lock` where every user may write there, else `/tmp`.",
  },
  ...STORE,
});

/** Everything that selects where a lock lives. */
export const LOCATION = defineArgs({
  ...DIR,
  file: {
    type: "string",
    valueHint: "PATH",
    description: "the lock taken with run --file PATH",
  },
});

/** The store of a lock that is to be taken. */
export const LEASE = defineArgs({
  ...STORE,
  ttl: {
    type: "string",
    valueHint: "DURATION",
    description: "length of a lease in the store (default 15s)",
    details: "It is the time that a lock stays taken when its lease is not renewed.",
  },
});

/** The values of the options above. */
export interface LocationValues {
  store?: string;
  "store-file"?: string;
  dir?: string;
  file?: string;
  keep?: true;
  ttl?: string;
}

/** Where locks live: a directory of this machine (undefined: the default one), or a store by its URL. */
export type LockLocation = { dir: string | undefined } | { url: string };

/**
 * Finds where the lock lives. The command line has precedence over the environment: `--dir`, `--file` and `--keep`
 * mean a file of this machine, whatever `EXCLUSIVE_STORE` is.
 * @throws {UsageError} for options that exclude each other, and for a file that cannot be read
 * @throws {TypeError} for a URL that names no store
 */
export function lockLocation(values: LocationValues): LockLocation {
  const { store, dir, file, keep } = values;
  const from = values["store-file"];
  if (store !== undefined && from !== undefined)
    throw new UsageError("--store cannot be combined with --store-file");
  if (dir !== undefined && file !== undefined) throw new UsageError("--dir cannot be combined with --file");
  const local = dir !== undefined ? "--dir" : file !== undefined ? "--file" : keep ? "--keep" : undefined;
  if (store === "") throw new UsageError("--store must not be empty (is a variable unset?)");
  const named = store ?? (from === undefined ? undefined : readUrl(from));
  if (named !== undefined && local !== undefined)
    throw new UsageError(`${local} is for locks in files: it cannot be combined with a store`);
  const url = named ?? (local === undefined ? process.env.EXCLUSIVE_STORE || undefined : undefined);
  if (url === undefined && values.ttl !== undefined)
    throw new UsageError("--ttl is for locks in a store: it needs --store or EXCLUSIVE_STORE");
  if (url === undefined) return { dir };
  const directory = directoryOf(checkStoreUrl(url));
  return directory === undefined ? { url } : { dir: directory };
}

function readUrl(file: string): string {
  const text = readText(absolute(file))?.trim();
  if (text === undefined) throw new UsageError(`cannot read --store-file ${printable(file)}`);
  if (text === "") throw new UsageError(`--store-file ${printable(file)} is empty: it must have the URL`);
  return text;
}

/** Opens the store that the values select. Its connection lasts as long as the command. */
export function openStoreOf(values: LocationValues): Store {
  const location = lockLocation(values);
  return "url" in location
    ? new LazyStore(location.url, { lasting: true })
    : new FileStore({ dir: location.dir, file: values.file });
}

/**
 * Returns the one NAME among the operands.
 * @throws {UsageError} when there is none, or more than one
 */
export function requireName(operands: readonly string[]): string {
  if (operands.length === 1) return checkName(operands[0]!);
  throw new UsageError(operands.length === 0 ? "missing NAME" : "one NAME at a time");
}
