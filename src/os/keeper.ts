/** Starts the smallest process that keeps an open file: a lock that stays taken when the program has ended. */
import { hasEnded } from "./child-process.ts";
import { startDetached } from "./detached.ts";
import type { Code } from "./libc.ts";
import { cString } from "./spawn.ts";

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
