/**
 * The locks that this thread's program holds, and on whose behalf: a wait for one of them may never end.
 *
 * A lock held by a `Lock` object is held by the program. A lock held by a call of an `exclusive()` function is held by that
 * call alone: another call may wait for its end, but what runs inside of it may not.
 *
 * Locks in files are released at exit, in the middle of a scope or of a wait too, so that no file stays behind.
 */
import type { AsyncLocalStorage } from "node:async_hooks";
import { clock } from "../os/clock.ts";
import type { Lease, PlaceChange, Store } from "./store.ts";
import { pause } from "./time-limit.ts";

/** Pause between two looks at the files of held locks, or at the clock, in milliseconds. */
const LOOK_MS = 1000;

/** A call of an `exclusive()` function. */
interface Call {
  outer: Call | undefined;
}

let calls: AsyncLocalStorage<Call> | undefined;

/** Runs a call of an `exclusive()` function: the locks that are taken inside of it are its own. */
export function asCall<T>(body: () => T): T {
  calls ??= new (require("node:async_hooks") as typeof import("node:async_hooks")).AsyncLocalStorage();
  return calls.run({ outer: calls.getStore() }, body);
}

/** A lease that ends at once: that of a lock in a file. */
export interface SyncLease extends Lease {
  releaseSync(): void;
  /** Keeps the lock's file at its path: to be called about once a second. */
  lookAfterFile(): PlaceChange | undefined;
  /** A release before this time, on `clock()`, leaves the lock to a process that keeps it until then. */
  keepUntil(time: number): void;
}

export const isSync = (lease: Lease): lease is SyncLease => "releaseSync" in lease;

/** Every lock that is held, and by which call; by none: by the program. */
const holds = new Map<Lease, { key: string; call: Call | undefined }>();
/** The locks in files among them. A lock of another store ends with its connection or lease. */
const inFiles = new Set<SyncLease>();
let watchingExit = false;
let lookingAfter: Timer | undefined;

/**
 * Looks after the files of the held locks, while the program's event loop turns. It does not keep the loop alive.
 * @param report called when another program has removed one
 */
export function lookAfterHeld(report: (change: PlaceChange) => void): void {
  lookingAfter ??= setInterval(() => {
    if (inFiles.size === 0) {
      clearInterval(lookingAfter);
      lookingAfter = undefined;
    }
    for (const lease of inFiles) {
      const change = lease.lookAfterFile();
      if (change !== undefined) report(change);
    }
  }, LOOK_MS).unref();
}

/** Tells locks apart: stores of one location are one. */
const keyOf = (store: Store, name: string): string => `${store.location(name)}\0${name}`;

/** Remembers a lease that was acquired, until `release`. One in a file is released at exit. */
export function hold<L extends Lease>(lease: L, store: Store, name: string): L {
  holds.set(lease, { key: keyOf(store, name), call: calls?.getStore() });
  if (!isSync(lease)) return lease;
  inFiles.add(lease);
  if (!watchingExit) process.on("exit", releaseAll);
  watchingExit = true;
  return lease;
}

/** Leases that end with another one. */
const attached = new WeakMap<Lease, SyncLease>();

/** Releases a lock in a file together with another one, and no earlier. */
export function releaseWith(lease: Lease, other: SyncLease): void {
  attached.set(lease, other);
}

/** Releases what would be released together with this one. */
export function releaseAttached(lease: Lease): void {
  const other = attached.get(lease);
  if (other !== undefined) releaseSync(other);
}

/** Releases a lock. A second call does nothing. */
export async function release(lease: Lease): Promise<void> {
  if (isSync(lease)) return releaseSync(lease);
  holds.delete(lease);
  await lease.release();
}

/** Releases a lock of a store at this time, on `clock()`. Up to then this process renews it, and goes on running. */
export async function releaseAt(time: number, lease: Lease): Promise<void> {
  for (let left = time - clock(); left > 0 && lease.lost?.aborted !== true; left = time - clock())
    await pause(Math.min(left, LOOK_MS));
  await release(lease);
}

/** Releases a lock in a file. A second call does nothing. */
export function releaseSync(lease: SyncLease): void {
  holds.delete(lease);
  inFiles.delete(lease);
  lease.releaseSync();
  releaseAttached(lease);
}

/** What to do when the exit of the process has released a lease. */
const atExit = new WeakMap<Lease, () => void>();

/** Calls this when the lock is released because the process ends, and not by `release`. */
export function whenReleasedAtExit(lease: Lease, callback: () => void): void {
  atExit.set(lease, callback);
}

/** Releases every lock in a file that this process holds, as the process is about to end. */
export function releaseAll(): void {
  for (const lease of inFiles) {
    lease.releaseSync();
    atExit.get(lease)?.();
  }
}

/** Does the program, or a call that we are in, hold this lock, and for good? A lease in a store may be lost at any time. */
export function isHeldAroundUs(store: Store, name: string): boolean {
  const key = keyOf(store, name);
  for (const [lease, hold] of holds) {
    if (hold.key !== key || lease.lost !== undefined) continue;
    if (hold.call === undefined) return true;
    for (let call = calls?.getStore(); call !== undefined; call = call.outer)
      if (call === hold.call) return true;
  }
  return false;
}
