/**
 * Waiters of which only the newest stays: `latest`.
 *
 * Each takes a place before it asks for the lock, also where the lock is free, and keeps it until it has the lock; in files,
 * which cost nothing, up to the release of the lock. A waiter that sees a newer place gives up: it is superseded. One that
 * has got the lock looks once more, and gives it back where it is superseded. So no run begins after a newer one that asked
 * before it. A waiter that is killed takes its place with it: the next newest one runs.
 */
import { seatName } from "../name.ts";
import { clock } from "../os/clock.ts";
import { ownStart } from "../os/processes.ts";
import { hold, isSync, release, releaseWith } from "./own-holds.ts";
import type { Lease, Place, Store } from "./store.ts";

/**
 * Acquires a lock as the newest of its waiters.
 * @param acquire acquires it in the usual way, until the signal fires
 * @param isCommand this process has been started to do so
 * @returns undefined when a newer one has come
 */
export async function acquireAsLatest<L extends Lease>(
  store: Store<L>,
  name: string,
  given: AbortSignal | undefined,
  isCommand: boolean,
  acquire: (signal: AbortSignal) => Promise<L>,
): Promise<L | undefined> {
  const place = await store.takePlace(name, isCommand ? ownStart() : clock(), given);
  hold(place.lease, store, seatName(name));
  const superseded = new AbortController();
  const signal = AbortSignal.any([superseded.signal, ...(given === undefined ? [] : [given])]);
  const looking = look(place, superseded);
  let stays = false;
  try {
    const lease = await acquire(signal);
    if (superseded.signal.aborted || !(await isNewest(place))) {
      await release(lease);
      return undefined;
    }
    await untilSeen(place);
    stays = isSync(place.lease);
    if (isSync(place.lease)) releaseWith(lease, place.lease);
    return lease;
  } catch (error) {
    if (superseded.signal.aborted && error === superseded.signal.reason) return undefined;
    throw error;
  } finally {
    clearInterval(looking);
    if (!stays) await release(place.lease);
  }
}

/** Where a place cannot be looked at, the lock itself is what counts. */
const isNewest = (place: Place): Promise<boolean> => place.isNewest().catch(() => true);

/**
 * Waits until the older waiters have given up: one that had not looked yet would get the lock after this run, as the newest.
 * One that is stopped is not waited for.
 */
async function untilSeen(place: Place): Promise<void> {
  for (let looks = 0; looks < 4 && (await place.hasOlder().catch(() => false)); looks++)
    await Bun.sleep(place.lookEvery / 2);
}

function look(place: Place, superseded: AbortController): Timer {
  let looks = false;
  return setInterval(async () => {
    if (looks || superseded.signal.aborted) return;
    looks = true;
    if (!(await isNewest(place))) superseded.abort(new Error("superseded"));
    looks = false;
  }, place.lookEvery);
}
