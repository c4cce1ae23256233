/** Which store a command line means: `--store`, `--store-file`, `EXCLUSIVE_STORE`. */
import { printable } from "../../errors.ts";
import { readText } from "../../os/files.ts";
import { checkStoreUrl, directoryOf } from "../../store/open-store.ts";
import { UsageError } from "./exit-status.ts";

export const STORE = {
  store: { value: "URL", help: "lock in redis://…, postgres://… or etcd://…" },
  "store-file": { value: "FILE", help: "read the URL for --store from this file" },
} as const;

export const LEASE = {
  ...STORE,
  ttl: { value: "DURATION", help: "length of a lease in the store (default 15s)" },
} as const;

/** The options that say where a lock lives. */
export interface StoreValues {
  store?: string;
  "store-file"?: string;
  dir?: string;
  file?: string;
  keep?: true;
}

/** Where locks live: a directory of this machine (undefined: the default one), or a store by its URL. */
export type Where = { dir: string | undefined } | { url: string };

/**
 * Where the lock lives: the command line counts more than the environment, so `--dir`, `--file` and `--keep` mean a
 * file of this machine whatever `EXCLUSIVE_STORE` says.
 * @throws {UsageError} for options that exclude each other, and a file that cannot be read
 * @throws {TypeError} for a URL that is none of a store
 */
export function whereOf(values: StoreValues): Where {
  const { store, dir, file, keep } = values;
  const from = values["store-file"];
  if (store !== undefined && from !== undefined)
    throw new UsageError("--store and --store-file exclude each other");
  const local = dir !== undefined ? "--dir" : file !== undefined ? "--file" : keep ? "--keep" : undefined;
  const named = store ?? (from === undefined ? undefined : readUrl(from));
  if (named !== undefined && local !== undefined)
    throw new UsageError(`${local} is for locks in files: it does not go with a store`);
  const url = named ?? (local === undefined ? process.env.EXCLUSIVE_STORE || undefined : undefined);
  if (url === undefined) return { dir };
  const directory = directoryOf(checkStoreUrl(url));
  return directory === undefined ? { url } : { dir: directory };
}

function readUrl(file: string): string {
  const text = readText(file)?.trim();
  if (text === undefined) throw new UsageError(`cannot read --store-file ${printable(file)}`);
  return text;
}
