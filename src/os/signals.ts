/**
 * Signals: their numbers, waiting for one, raising one.
 *
 * Signals are process-directed: any thread that has not blocked one may consume it, and then it is lost to the thread
 * that waits for it. Threads inherit the mask of the thread that starts them, and the engine starts its own as soon as
 * any function is hot. Therefore `main.ts` blocks all signals before it imports anything else (`signal-mask.ts`).
 *
 * Which way signals and the ends of children are waited for:
 *
 * | where                        | how                                  | why                                              |
 * |------------------------------|--------------------------------------|--------------------------------------------------|
 * | `run`, `flock`: the command  | sigtimedwait(2) on the main thread   | it reports the sender, which no handler in JavaScript learns, and needs no event loop |
 * | `run` with a store           | handlers, and waitid(2) in a thread  | leases are renewed on the event loop, which waits with an empty signal mask |
 * | library, slots: a held lock  | flock(2) in a thread                 | the event loop goes on; several files are waited for at once |
 * | `flock`: a held lock         | flock(2) on the main thread, SIGALRM | no thread: 10 MiB less for each waiter           |
 * | `list`, `doctor`, wait line, guardian | handlers                    | the event loop runs anyway                       |
 *
 * No wait for a signal is without a time limit: a lost one must not hang us.
 */
import { isTimerOver, SIGALRM, setTimer } from "./interval-timer.ts";
import { address, libc, linux } from "./libc.ts";
import { blockAgain, changeMask, maskAtStart, ownMask, setMask, wasBlocked } from "./signal-mask.ts";
import {
  allSignals,
  interruptWith,
  isIgnored,
  SIG_BLOCK,
  SIG_UNBLOCK,
  SIGCHLD,
  setDefault,
  signalSet,
} from "./signal-sets.ts";
import { inForeground } from "./terminal.ts";

/** Signal numbers, signal(7). */
export const SIG = {
  HUP: 1,
  INT: 2,
  QUIT: 3,
  KILL: 9,
  PIPE: 13,
  TERM: 15,
  CHLD: SIGCHLD,
  CONT: linux ? 18 : 19,
  STOP: linux ? 19 : 17,
  TSTP: linux ? 20 : 18,
  TTIN: 21,
  TTOU: 22,
  XFSZ: 25,
  WINCH: 28,
} as const;

const UNBLOCKABLE = new Set<number>([SIG.KILL, SIG.STOP]);
/** The C library uses those below itself. */
const FIRST_REAL_TIME = linux ? 34 : 65;
const LAST_REAL_TIME = 64;
/** Only Linux has it. */
const SIGSTKFLT = 16;
const RLIMIT_CORE = 4;

const c = libc({
  // The third argument is sigtimedwait's alone.
  [linux ? "sigtimedwait" : "sigwait"]: { args: ["ptr", "ptr", "ptr"], returns: "i32" },
  getsid: { args: ["i32"], returns: "i32" },
  setrlimit: { args: ["i32", "ptr"], returns: "i32" },
  _exit: { args: ["i32"], returns: "void" },
});

const all = allSignals();

/** Lets the pending signals have their effect on us. No thread may be started in between. */
export function takePendingSignals(): void {
  interruptible(() => {}, ownMask());
}

/** Makes a system call that a signal may end, or in which one may end us. No thread may be started in between. */
export function interruptible<T>(call: () => T, mask = maskAtStart): T {
  setMask(mask);
  const result = call();
  blockAgain();
  return result;
}

/** A signal that was sent to us. */
export interface ReceivedSignal {
  signal: number;
  /** Sent by the kernel, as a terminal's Ctrl-C is, not by a process. */
  fromKernel: boolean;
  /** Pid of the process that sent it; 0 where that is not known. */
  sender: number;
}

const siginfo = new Int32Array(32);

/** Bounds of one wait, in milliseconds. */
const WAIT_MOST = 1000;
const WAIT_LEAST = 1;
const waitLimit = new BigInt64Array(2); // struct timespec

/** The next signal that was sent to us; undefined when none came within this time, at most a second. */
export function nextSignal(milliseconds = WAIT_MOST): ReceivedSignal | undefined {
  const micros = BigInt(Math.ceil(Math.max(WAIT_LEAST, Math.min(milliseconds, WAIT_MOST)) * 1000));
  if (!linux) return nextSignalOfMacOS(micros);
  waitLimit[0] = micros / 1_000_000n;
  waitLimit[1] = (micros % 1_000_000n) * 1000n;
  const signal = c.sigtimedwait!(address(all), address(siginfo), address(waitLimit));
  if (signal <= 0) return undefined;
  return { signal, fromKernel: siginfo[2]! > 0, sender: siginfo[2]! > 0 ? 0 : siginfo[4]! };
}

/** macOS has no sigtimedwait(2): a one-shot timer ends the wait. What is left of the timer tells its signal from another. */
function nextSignalOfMacOS(micros: bigint): ReceivedSignal | undefined {
  setTimer(micros, 0n);
  if (c.sigwait!(address(all), address(siginfo), null) !== 0) return undefined;
  const signal = siginfo[0]!;
  if (signal === SIGALRM && isTimerOver()) return undefined;
  // macOS does not report the sender. A terminal's signals come while we are in its foreground.
  return { signal, fromKernel: inForeground(), sender: 0 };
}

/** Ends what `keepBlockedSignals` has begun. */
let releaseKept: (() => void) | undefined;

/**
 * From now on, a signal that was blocked at our start is kept for the command, though the event loop waits with an empty
 * mask: it would end us. Real-time signals have no listeners in JavaScript: they do no harm, and are lost.
 */
export function keepBlockedSignals(): void {
  if (!maskAtStart.some((bits) => bits !== 0)) return;
  const came: number[] = [];
  const undo = new DisposableStack();
  const { signals } = (require("node:os") as typeof import("node:os")).constants;
  for (const [name, number] of Object.entries(signals) as [NodeJS.Signals, number][]) {
    if (!wasBlocked(number) || UNBLOCKABLE.has(number) || isIgnored(number)) continue;
    const keep = () => void came.push(number);
    process.on(name, keep);
    undo.defer(() => void process.off(name, keep));
  }
  for (let number = FIRST_REAL_TIME; number <= LAST_REAL_TIME; number++)
    if (wasBlocked(number) && !isIgnored(number)) undo.use(interruptWith(number));
  releaseKept = () => {
    undo.dispose();
    for (const number of came) send(process.pid, number); // pending: we have it blocked
  };
}

/** Makes the signals that were kept pending: call it when no event loop comes any more, or handlers have taken over. */
export function releaseKeptSignals(): void {
  releaseKept?.();
  releaseKept = undefined;
}

/** From now on no signal ends us for which JavaScript has no listeners. It is lost. */
export function surviveUnnamedSignals(): void {
  const unnamed = linux ? [SIGSTKFLT] : [];
  for (let number = FIRST_REAL_TIME; number <= LAST_REAL_TIME; number++) unnamed.push(number);
  for (const number of unnamed) if (!isIgnored(number)) interruptWith(number);
}

/** Sends a signal to a process, or to the group of a negative number; that it is gone is no error. */
export function send(pid: number, signal: number): void {
  try {
    process.kill(pid, signal);
  } catch {}
}

/** Is this process the leader of its session? A terminal that goes away signals its session leader alone. */
export const isSessionLeader = (): boolean => c.getsid!(0) === process.pid;

/** Raises a signal with its default action; returns only if that does not end us, as a stop. */
export function raiseDefault(signal: number): void {
  const one = signalSet(signal);
  setDefault(signal);
  send(process.pid, signal);
  changeMask(SIG_UNBLOCK, one);
  changeMask(SIG_BLOCK, one);
}

/** Ends this process by the signal that killed the command, without a second core dump. */
export function dieBySignal(signal: number): never {
  c.setrlimit!(RLIMIT_CORE, address(new BigUint64Array(2)));
  raiseDefault(signal);
  return exit(128 + signal);
}

/** Ends this process at once: nothing is left to do. */
export function exit(status: number): never {
  c._exit!(status);
  throw new Error("unreachable");
}
