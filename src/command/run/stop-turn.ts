/**
 * Turns: the processes that stop the holder of a lock do it one after the other, so that each command gets one SIGTERM,
 * however many want it to end. A turn is a lock of its own, in a file of this machine: only its processes can be stopped.
 */
import { constants } from "node:os";
import { acquire, release, releaseAll } from "../../acquire.ts";
import { LockFileError } from "../../errors.ts";
import { stopTurnName } from "../../name.ts";
import { isIgnored } from "../../os/signal-sets.ts";
import { dieBySignal } from "../../os/signals.ts";
import { FileStore } from "../../store/file/file-store.ts";
import type { Store } from "../../store/store.ts";

/** Signals that end us while we have a turn or wait for one: its file must not stay. */
const ENDING = ["SIGHUP", "SIGINT", "SIGTERM"] as const;

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
  const signals = ENDING.filter((signal) => !isIgnored(constants.signals[signal]));
  const end = (signal: NodeJS.Signals) => {
    releaseAll();
    dieBySignal(constants.signals[signal]);
  };
  for (const signal of signals) process.on(signal, end);
  try {
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
  } finally {
    for (const signal of signals) process.off(signal, end);
  }
}
