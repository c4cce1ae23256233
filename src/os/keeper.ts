/** Starts processes that keep an open file: a lock that stays taken when the program has ended. */
import { hasEnded } from "./child-process.ts";
import { closeOnExec } from "./descriptors.ts";
import { startDetached } from "./detached.ts";
import { close, fstat, O, open } from "./files.ts";
import { Alarm, LOCK, waitingFlock } from "./flock.ts";
import { SIGALRM } from "./interval-timer.ts";
import type { Code } from "./libc.ts";
import { kernelLocks } from "./lock-table.ts";
import { ourselves } from "./self.ts";
import { allSignals, signalSet } from "./signal-sets.ts";
import { interruptible } from "./signals.ts";
import { cString, environment } from "./spawn.ts";

/** About 68 years: the longest time that every sleep(1) takes. */
const WITHOUT_END = 2 ** 31 - 1;

/** It keeps no directory busy, and becomes sleep(1): one process, of less than a mebibyte. */
const SCRIPT = `cd / && exec sleep "$0"`;

/**
 * Starts a process that has these descriptors and does nothing for so many seconds; undefined: without end.
 * @returns its pid, or the code of a failure
 */
export function startKeeper(
  descriptors: readonly number[],
  seconds = WITHOUT_END,
): { pid: number; failure?: undefined } | { pid?: undefined; failure: Code } {
  const time = String(Math.min(WITHOUT_END, Math.max(0.001, Number(seconds.toFixed(3)))));
  return startDetached(["/bin/sh", "-c", SCRIPT, time], [cString("PATH=/bin:/usr/bin")], descriptors);
}

const REAP_MS = 1000;

/** Reaps a keeper, in a program that goes on: at its end, which is looked for as long as the event loop turns otherwise. */
export function reapKeeper(pid: number, milliseconds: number): void {
  const reap = () => {
    if (!hasEnded(pid)) setTimeout(reap, REAP_MS).unref();
  };
  setTimeout(reap, Math.min(milliseconds + REAP_MS / 10, WITHOUT_END)).unref();
}

/** The word by which this program starts itself to keep an open file. */
export const KEEP = "__keep";

/**
 * Starts a process that has an open file as long as another one is locked by this process, or by what inherited that from it.
 * It opens the other one again, which Linux allows though it was removed, and waits for its lock.
 * @returns its pid; undefined where that cannot be done
 */
export function keepWhileHeld(fd: number, other: number): number | undefined {
  const again = open(`/proc/self/fd/${other}`, O.RDONLY | O.NONBLOCK);
  if (typeof again === "string") return undefined;
  const argv = [...ourselves(), KEEP, String(again), String(process.pid)];
  const { pid } = startDetached(argv, environment({}), [again, fd]);
  close(again);
  closeOnExec(fd);
  return pid;
}

/** How often `keep` looks who has the lock, in seconds. */
const LOOK_S = 1;

/** The other side of `keepWhileHeld`. No signal that can be blocked ends it. @param args the arguments behind `KEEP` */
export function keep([again, taker]: readonly string[]): void {
  process.chdir("/");
  const fd = Number(again);
  const mask = allSignals().map((bits, i) => bits & ~signalSet(SIGALRM)[i]!);
  for (let over = false; !over; ) {
    using _alarm = new Alarm(LOOK_S);
    const failure = interruptible(() => waitingFlock(fd, LOCK.EX), mask);
    // A waiter that was first keeps the file, and may wait for the one that we keep.
    over = failure !== "EINTR" || isAnothers(fd, Number(taker));
  }
}

/** Has a process the lock of this file, and not from the one of this pid? By the inode alone: btrfs shows another device. */
function isAnothers(fd: number, taker: number): boolean {
  const file = fstat(fd);
  if (typeof file === "string") return true;
  const locks = [...kernelLocks()].filter(([key]) => key.endsWith(`:${file.ino}`));
  return locks.length > 0 && !locks.some(([, { pids }]) => pids.includes(taker));
}
