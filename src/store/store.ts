/** The interface of every store. A store is a place where locks live: a directory, or a server's database. */
import { printable } from "../errors.ts";
import { type Holder, type Mode, workingPid } from "../holder.ts";

/** The reason of a signal that ends a wait because its time is up. */
export class TimeIsUp extends Error {
  override readonly name = "TimeIsUp";
}

/** Which lock to take, and how. */
export interface Request {
  /** The lock's name, already checked by `checkName`. */
  name: string;
  /** Exclusive: one holder. Shared: many holders, but no exclusive one. */
  mode: Mode;
  /** A note for people, kept with the lock. */
  label?: string | undefined;
  /** The number of slots, where the lock is one of several slots; kept with the lock. */
  slots?: number | undefined;
  /** No command runs under the lock: it is kept up to this time, ISO 8601, or until it is `"stopped"`. */
  until?: string | undefined;
  /** After so many seconds the holder has it for too long; kept with the lock, and nothing more. */
  overdue?: number | undefined;
}

/** What another program did to the file of a held lock. */
export interface PlaceChange {
  /**
   * `retaken`: the file was removed, and made and locked again. `split`: another process holds the lock at the same path,
   * or no file can be made there.
   */
  event: "retaken" | "split";
  lockfile: string;
  /** With `split`: the other holder, as far as it is known. */
  holder?: Holder | undefined;
  /** With `split`: why the file cannot be made again. */
  reason?: string | undefined;
}

/** One sentence about it. */
export function describePlaceChange({ event, lockfile, holder, reason }: PlaceChange): string {
  const removed = `the lock file ${printable(lockfile)} was removed while its lock was held`;
  if (event === "retaken") return `${removed}: it is there again, and locked`;
  if (reason !== undefined) return `${removed}, and cannot be made again: ${reason}`;
  const pid = holder && workingPid(holder);
  return `${removed}, and ${pid ? `pid ${pid}` : "another process"} holds the lock at the same time`;
}

/** A lock that is held. */
export interface Lease {
  /** Where the lock lives: the lock file's path, or the store's URL without its secrets. */
  readonly location: string;
  /** The fencing token: larger than that of every earlier holder. Undefined in a store without tokens. */
  readonly token?: bigint | undefined;
  /**
   * Fires when ownership can no longer be proven; its reason is a `LockLost`. Undefined where a lock cannot end before
   * `release()`.
   */
  readonly lost?: AbortSignal | undefined;
  /** Adds the wrapped command's pid to the holder's record. */
  recordCommand?(pid: number): void;
  /**
   * Releases the lock. A second call does nothing. It does not throw for a server that is unreachable: the lock then
   * ends with the lease.
   */
  release(): Promise<void>;
}

/** The place of a waiter among those of which only the newest stays. */
export interface Place {
  /** Held up to the end of the place. */
  readonly lease: Lease;
  /** How often to look, in milliseconds. */
  readonly lookEvery: number;
  /** Is there no newer place? */
  isNewest(): Promise<boolean>;
  /** Is there an older one? */
  hasOlder(): Promise<boolean>;
}

/** The state of one lock. */
export interface LockStatus {
  /** The lock's name. */
  name: string;
  /** `unknown`: the OS does not permit this process to find out. */
  state: "held" | "free" | "unknown";
  /** Path of the lock file, or the store's URL without its secrets. */
  lockfile: string;
  /** The holder, as far as it is known. Undefined for a free lock. */
  holder?: Holder | undefined;
  /** The other holders of a shared lock, as far as they are known. */
  others?: Holder[] | undefined;
  /** Holders through a file that was removed from its path: a new holder does not exclude them. */
  removed?: Holder[] | undefined;
  /** The holder has had it for longer than `list --overdue` says, or the holder's own `--overdue`. */
  overdue?: boolean | undefined;
  /** The number of waiters. Undefined where the store cannot tell. */
  waiters?: number | undefined;
  /** The held slots of a lock with slots. Each is a lock of its own, named `NAME.1`, `NAME.2`, … */
  slots?: LockStatus[] | undefined;
}

/** A type after a round trip through JSON: dates are strings in ISO 8601, and undefined fields are absent. */
type Json<T> = T extends Date ? string : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

/** The output of `exclusive status --json`, and each element of the array that `exclusive list --json` prints. */
export type LockStatusJson = Json<LockStatus>;

/**
 * A place where locks live. Every request is rejected with a `LockFileError` (a store of files) or a `StoreError` (a
 * server that is unreachable, or refuses it) when it fails; to take a lock in a mode that the store does not have is a
 * `TypeError`.
 */
export interface Store<L extends Lease = Lease> {
  /**
   * Takes the lock if it is free; resolves with undefined if it is held.
   *
   * A server that lost its memory (it is new, restarted or emptied) may have forgotten a holder that is still running.
   * So after such an event this waits, with a notice, for up to one lease before it takes a lock.
   * @param signal gives up: the promise is rejected with the signal's reason. If that is a `TimeIsUp` and the lock is not
   *   known to be held, it is rejected with a `StoreError` that says why. A signal that has already fired prevents only
   *   the wait, not taking a free lock.
   */
  tryAcquire(request: Request, signal?: AbortSignal): Promise<L | undefined>;
  /**
   * Waits in the engine's queue, and takes the lock. It waits through every time in which the server is away.
   * @param signal gives up the wait: the promise is rejected as that of `tryAcquire`, and no waiter is left behind
   */
  waitAcquire(request: Request, signal?: AbortSignal): Promise<L>;
  /**
   * As `waitAcquire`; but undefined, and without the lock, when the holder that it waited behind recorded a command
   * (`Lease.recordCommand`) before it released the lock. In a store without this, `acquire` looks at the holders.
   */
  waitBehind?(request: Request, signal?: AbortSignal): Promise<L | undefined>;
  /**
   * Takes a place in the order of those that want this lock: the newest one. A place ends with its process, as a lock does.
   * @param started when the lock was asked for, on `clock()`: the order of places in files. In a server it is the order in
   *   which they were taken there.
   * @param signal gives up: the promise is rejected with the signal's reason
   */
  takePlace(name: string, started: number, signal?: AbortSignal): Promise<Place>;
  /**
   * Waits until the lock is free. It takes no lock away from a waiter, and leaves nothing behind in the store.
   * @param signal gives up the wait: the promise is rejected with the signal's reason
   */
  waitFree(name: string, signal?: AbortSignal): Promise<void>;
  /** Reads the state of one lock. */
  status(name: string): Promise<LockStatus>;
  /** Reads the state of every lock in this store. A store of files also lists free locks whose files still exist. */
  list(): Promise<LockStatus[]>;
  /** What an operator should know of the server, for `exclusive doctor`: each with a short name. */
  facts?(): Promise<Record<string, string>>;
  /** The path of the lock's file, or the store's URL without its secrets. Makes no request. */
  location(name: string): string;
  /** Closes all connections, and so releases the locks of a remote store. */
  close(): Promise<void>;
}
