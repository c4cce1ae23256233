/** The process's own timer, which sends SIGALRM: setitimer(2). Ends system calls that have no time limit themselves. */
import { address, type CFunction, libc } from "./libc.ts";

export const SIGALRM = 14;
const ITIMER_REAL = 0;
const MILLION = 1_000_000n;

let functions: Record<"setitimer" | "getitimer", CFunction> | undefined;
function timer() {
  functions ??= libc({
    setitimer: { args: ["i32", "ptr", "ptr"], returns: "i32" },
    getitimer: { args: ["i32", "ptr"], returns: "i32" },
  });
  return functions;
}

/** Sends SIGALRM after `first` microseconds, then every `interval`; 0 is never. */
export function setTimer(first: bigint, interval: bigint): void {
  const itimerval = new BigInt64Array([
    interval / MILLION,
    interval % MILLION,
    first / MILLION,
    first % MILLION,
  ]);
  timer().setitimer(ITIMER_REAL, address(itimerval), null);
}

/** Has the timer sent its last signal? */
export function isTimerOver(): boolean {
  const itimerval = new BigInt64Array(4);
  timer().getitimer(ITIMER_REAL, address(itimerval));
  return itimerval[2] === 0n && itimerval[3] === 0n;
}
