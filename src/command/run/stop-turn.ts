/**
 * Turns: the processes that stop the holder of a lock do it one after the other, so that each command gets one SIGTERM,
 * however many want it to end. A turn is a lock of its own, in a file of this machine: only its processes can be stopped.
 */
import { acquire, release, releaseAll } from "../../acquire.ts";
import { LockFileError } from "../../errors.ts";
import { stopTurnName } from "../../name.ts";
import { beforeDeath } from "../../os/before-death.ts";
import { FileStore } from "../../store/file/file-store.ts";
import type { Store } from "../../store/store.ts";

/**
 * Does something in turn.
 * @param wait milliseconds to wait for our turn at most
 * @param work gets whether it is our turn; `late`: the wait was too long; `none`: no file for turns can be made here
 */
export async function inTurn<T>(
  store: Store,
  name: string,
  wait: number,
  work: (turn: "ours" | "late" | "none") => Promise<T>,
): Promise<T> {
  const turns = new FileStore(store instanceof FileStore ? { dir: store.dir } : {});
  const isNamed = store.location(name) !== turns.location(name);
  const turn = { name: stopTurnName(isNamed ? store.location(name) : name), mode: "exclusive" } as const;
  using _file = beforeDeath(releaseAll); // the file of a turn must not stay
  const giveUp = wait === Number.POSITIVE_INFINITY ? undefined : AbortSignal.timeout(wait);
  const lease = await acquire(turns, turn, { wait: true, signal: giveUp }).catch((error: unknown) => {
    if (error instanceof LockFileError) return "none";
    if (error === giveUp?.reason) return "late";
    throw error;
  });
  if (typeof lease === "string") return await work(lease);
  try {
    return await work("ours");
  } finally {
    await release(lease);
  }
}
