/** What a `Lock` is made from. */
import type { Duration } from "./duration.ts";
import type { Logger } from "./logger.ts";
import { FileStore } from "./store/file/file-store.ts";
import { LazyStore } from "./store/lazy-store.ts";
import { checkStoreUrl, directoryOf, type openStore } from "./store/open-store.ts";
import type { Store } from "./store/store.ts";

/** Which lock, and where it lives. */
export interface LockOptions {
  /** Any text. Default: the absolute path of the calling file; in a compiled program, of the executable. */
  name?: string | undefined;
  /**
   * Directory of the lock file. Default: `EXCLUSIVE_DIR`, else `/var/lock` where every user may write in it, else `/tmp`.
   */
  dir?: string | undefined;
  /** Lock this existing file or directory as it is; it is never written to nor deleted. */
  file?: string | undefined;
  /** Share the lock with other holders that share it, and exclude all others. */
  shared?: boolean | undefined;
  /** Allow up to this many holders at a time: they hold the locks `NAME.1` … `NAME.N`. */
  slots?: number | undefined;
  /** Leave the lock file in place on release, emptied. */
  keep?: boolean | undefined;
  /**
   * Keep the lock at least so long after it was acquired, however soon it is released: so a job runs once per tick on hosts
   * whose clocks differ. A lock in a file is left to a process that only sleeps, and the program may end: `exclusive list`
   * shows it, and `exclusive stop` ends it. A lock in a store is kept by the program itself, which runs on until then
   * (`process.exit()` ends both).
   */
  holdFor?: Duration | undefined;
  /** A note for people, kept in the record. */
  label?: string | undefined;
  /** When the lock is held: print that on stderr and exit with status 1. */
  die?: boolean | undefined;
  /**
   * Where the lock lives, if not in a file of this machine: `postgres://…`, `mysql://…`, `redis://…`, `etcd://…` (see {@link openStore}),
   * or an open store. A remote store needs `acquire()` and `await using`: the synchronous methods throw a `TypeError`.
   */
  store?: string | Store | undefined;
  /** With the URL of a store: how long the store keeps the lock of a silent holder. Default `"15s"`. */
  ttl?: Duration | undefined;
  /**
   * Append an event for each acquire, refusal, release and loss to this file, as `exclusive run --log-file` does. A
   * failure of the file costs the record, and never the lock. Default: `EXCLUSIVE_LOG_FILE`, else none.
   */
  logFile?: string | undefined;
  /** Receives a line for each acquire and release. Default: none, or consola where `EXCLUSIVE_LOG=info`. */
  logger?: Logger | undefined;
}

/** @throws `TypeError` for a URL that is not a store's, or with options for lock files alone */
export function storeFor(options: LockOptions): Store {
  const { store, ttl, dir, file, keep } = options;
  if (store === undefined) return new FileStore(options);
  if (dir !== undefined || file !== undefined || keep)
    throw new TypeError("dir, file and keep are for locks in files: they cannot be combined with store");
  if (typeof store !== "string") return store;
  const directory = directoryOf(checkStoreUrl(store));
  return directory === undefined ? new LazyStore(store, { ttl }) : new FileStore({ dir: directory });
}
