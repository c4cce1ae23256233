/** One of both holds of a lock in a store, kept while no command runs: by `exclusive hold`, and by `run --hold-for`. */
import { StoreError } from "../../errors.ts";
import { pause, type TimedLease } from "../../store/lease.ts";
import type { Request, Store } from "../../store/store.ts";

/** Part of a lease: how often a hold is looked at. */
const LOOKS = 10;

/**
 * Keeps a hold until the signal fires, and then releases it. One that the store has lost is taken again.
 * @param lease undefined: it is waited for first
 */
export async function keepHold(
  store: Store<TimedLease>,
  request: Request,
  over: AbortSignal,
  lease?: TimedLease,
): Promise<void> {
  let held = lease;
  while (!over.aborted) {
    held ??= await take(store, request, over);
    if (held === undefined) continue;
    held.onlyKeep();
    const next = await takeAgain(store, request, held, AbortSignal.any([over, held.lost]));
    await held.release();
    held = next;
  }
  await held?.release();
}

/** @returns undefined when the signal has fired, or, after a pause, when the store has refused */
async function take(
  store: Store<TimedLease>,
  request: Request,
  signal: AbortSignal,
): Promise<TimedLease | undefined> {
  try {
    return await store.waitAcquire(request, signal);
  } catch (error) {
    if (!signal.aborted && !(error instanceof StoreError)) throw error;
    await pause(1000, signal).catch(() => {});
    return undefined;
  }
}

/**
 * Waits for the lock beside a hold that the store may have lost, as long as the store is silent about it: a server that
 * stood still has it still, and a standby that was promoted does not.
 * @param stop the hold is lost, or no longer wanted
 * @returns the lock that was taken again; undefined when the signal has fired
 */
async function takeAgain(
  store: Store<TimedLease>,
  request: Request,
  held: TimedLease,
  stop: AbortSignal,
): Promise<TimedLease | undefined> {
  while (!stop.aborted) {
    await pause(held.ttl / LOOKS, stop).catch(() => {});
    if (stop.aborted || !held.isSilent) continue;
    const heard = new AbortController();
    held.onextended = () => heard.abort();
    const again = await take(store, request, AbortSignal.any([stop, heard.signal]));
    if (again !== undefined) return again;
  }
  return undefined;
}
