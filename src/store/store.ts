/** The interface that every store keeps: a store is a place where locks live. */
import type { Holder, Mode } from "../holder.ts";

/** What somebody wants of a store. */
export interface Request {
  /** The lock's name, already checked. */
  name: string;
  mode: Mode;
  /** Text for people, kept with the lock. */
  label?: string | undefined;
  /** How many slots the lock has of which this is one; kept with the lock. */
  slots?: number | undefined;
}

/** A lock that is held. */
export interface Lease {
  /** Where the lock lives: the lock file's path, or the store's URL without its secrets. */
  readonly place: string;
  /** The fencing token: larger than that of every earlier holder. Undefined where the store has none. */
  readonly token?: bigint | undefined;
  /** Fires when ownership can no longer be proven. Undefined where it cannot end before `release()`. */
  readonly lost?: AbortSignal | undefined;
  /** Until when nobody else can own the lock, in milliseconds on `clock()`. Undefined where there is no such end. */
  readonly deadline?: number | undefined;
  /** Told of each new `deadline`. */
  onextended?: ((deadline: number) => void) | undefined;
  /** Adds the wrapped command's pid to what is known of the holder. */
  recordCommand?(pid: number): void;
  /** Gives the lock back. A second call does nothing. */
  release(): Promise<void>;
}

/** What is known of one lock. */
export interface LockStatus {
  name: string;
  /** `unknown` where the OS does not let us ask. */
  state: "held" | "free" | "unknown";
  /** Path of the lock file, or the store's URL without its secrets. */
  lockfile: string;
  holder?: Holder | undefined;
  /** Those who share it with `holder`, as far as that can be known. */
  others?: Holder[] | undefined;
  /** How many wait for it, where that can be known. */
  waiters?: number | undefined;
  /** The slots that are held, where the lock has slots: they are locks of their own, named `NAME.1`, `NAME.2`, … */
  slots?: LockStatus[] | undefined;
}

/** A type as JSON has it: dates are strings in ISO 8601, and what is undefined is left out. */
type Json<T> = T extends Date ? string : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

/** What `exclusive status --json` prints, and each element of the array that `exclusive list --json` prints. */
export type LockStatusJson = Json<LockStatus>;

export interface Store<L extends Lease = Lease> {
  /**
   * Takes the lock if it is free; undefined when it is held.
   *
   * A store that has forgotten what it knew (restarted, emptied) is not believed that a lock is free before its memory
   * reaches back one lease: this waits for that, and says so.
   * @param signal gives that wait up; if it has fired already there is none. The promise is then rejected with its reason.
   */
  tryAcquire(request: Request, signal?: AbortSignal): Promise<L | undefined>;
  /**
   * Waits for the lock in the engine, without polling.
   * @param signal gives the wait up: the promise is rejected with its reason once nothing is left waiting
   */
  waitAcquire(request: Request, signal?: AbortSignal): Promise<L>;
  /**
   * Waits until nobody holds the lock, without taking it from anybody and without making anything.
   * @param signal gives the wait up: the promise is rejected with its reason
   */
  waitFree?(name: string, signal?: AbortSignal): Promise<void>;
  /** What is known of one lock. */
  status(name: string): Promise<LockStatus>;
  /** What is known of every lock in this store. */
  list(): Promise<LockStatus[]>;
  /** Where a lock of this name lives. */
  place(name: string): string;
  /** Closes connections. Held locks end with it. */
  close(): Promise<void>;
}
