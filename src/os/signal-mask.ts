/**
 * The state that this program was started with, as far as Bun changes it; and the signal mask. `main.ts` needs this before
 * anything else, so it loads little.
 *
 * The command gets what we got. What Bun 1.4.5 changes before our code runs, or beside it; where (in its sources); how that
 * is undone; where it is tested (`test/command/run.`…):
 *
 * | what                                          | where in Bun                        | how it is kept                           | test        |
 * |-----------------------------------------------|-------------------------------------|------------------------------------------|-------------|
 * | soft RLIMIT_NOFILE raised to the hard one     | main                                | `setrlimit` renamed (1)                  | probe       |
 * | SIGPIPE, SIGXFSZ ignored                      | main                                | recorded (2), set again in `blockSignals`| probe       |
 * | ILL TRAP ABRT BUS FPE SEGV handled            | crash handler; JavaScriptCore       | recorded (2), set again before the start | probe       |
 * | ILL TRAP ABRT BUS FPE SEGV open in one thread | libpas, the thread that frees memory | passed on (2), `passFaultsOn`           | signals     |
 * | SYS handled                                   | main (seccomp filters)              | recorded (2), set again before the start | probe       |
 * | PWR handled and unblocked                     | JavaScriptCore, threads             | recorded (2), set again before the start | probe       |
 * | INT, TERM handled where 0, 1 or 2 is a terminal | c-bindings, start                 | `tcgetattr` renamed (1)                  | probe       |
 * | terminal modes set back at exit               | c-bindings, exit                    | `tcsetattr` renamed (1)                  | streams     |
 * | parent-death signal with BUN_FEATURE_FLAG_NO_ORPHANS | ParentDeathWatchdog          | `prctl` renamed (1)                      | probe       |
 * | descriptors from 4 on close-on-exec           | c-bindings, start                   | cleared before the start, `descriptors.ts` | probe     |
 * | closed 0 to 2 become /dev/null, close-on-exec | c-bindings, start                   | close-on-exec closes them in the command | probe       |
 * | an epoll and an eventfd, close-on-exec        | event loop                          | known by what they are, `descriptors.ts` | probe       |
 * | O_NONBLOCK on stdout and stderr, more descriptors | `process.stdout`, `Bun.stdout.writer()`, … | never used: `terminal.ts`, `files.ts` | streams |
 * | the loop waits with an empty signal mask      | event loop                          | `keepBlockedSignals` during a wait       | signals     |
 * | spawnSync handles signals meanwhile           | `Bun.spawnSync`                     | never used beside a command on Linux     | –           |
 *
 * 1. In the Linux binary: `build/process-state.ts`. 2. In the Linux binary, before Bun's first instruction:
 * `build/record-start.ts`. In the npm package, where Bun is as it is, and on macOS, these stay as Bun has set them, but for
 * PIPE and XFSZ: the command gets their default action. Not changed by Bun: umask, directory, priorities, timers, other
 * limits, environment, personality.
 */
import { address, libc, linux } from "./libc.ts";
import { isCompiled } from "./self.ts";
import {
  allSignals,
  SIG_BLOCK,
  SIG_IGN,
  SIG_SETMASK,
  SIG_UNBLOCK,
  SIGCHLD,
  SIGPWR,
  SIGSYS,
  SIGURG,
  signalSet,
} from "./signal-sets.ts";

const { sigprocmask, signal, getauxval, sigaction } = libc({
  sigprocmask: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  signal: { args: ["i32", "ptr"], returns: "ptr" },
  ...(linux && {
    getauxval: { args: ["u64"], returns: "u64" },
    sigaction: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  }),
} as const);

const all = allSignals();
const isPresent = linux && isCompiled;
const AT_FLAGS = 8;
const AT_ENTRY = 9;
/** Where the binary has a handler of fault signals: so many bytes before its entry, see `build/record-start.ts`. */
const HANDLER_BYTES = 96n;
/** SA_SIGINFO, SA_ONSTACK, SA_RESTART: sigaction(2). */
const HANDLER_FLAGS = 0x1800_0004n;
/** A bit that no signal needs: SIGKILL cannot be ignored. */
const PWR_WAS_BLOCKED = 1n << 8n;

/** Signals, signal(7), that Bun ignores. The binary gets their actions back at once, the npm package's command defaults. */
const SIGXFSZ = 25;
const BUN_IGNORES = [13, SIGXFSZ] as const;
/** Signals of faults: Bun prints a report for each, also where another process sent it. Their default action is ours. */
const FAULTS = [4, 5, 6, 7, 8, 11] as const;

/** The mask that we were started with, and that the command gets. */
export const maskAtStart = new Uint8Array(all.length);

/** Was this signal blocked at our start? */
export const wasBlocked = (number: number): boolean =>
  ((maskAtStart[(number - 1) >> 3]! >> ((number - 1) & 7)) & 1) === 1;

/** The record: bit S-1 for each signal S that was ignored. Used only for signals that Bun changes: an emulator may set others. */
let record = 0n;
const wasIgnored = (number: number): boolean => ((record >> BigInt(number - 1)) & 1n) === 1n;

let isBlocking = false;
let ignoresChildren = false;
/** Does the event loop run, or has it? While it rests, the collector suspends this thread, and may not have finished since. */
let engineSuspends = false;
/** The engine's handler of SIGPWR, as a `struct sigaction`. */
const engineAction = new BigUint64Array(20);

/** What this thread blocks now. */
let blocked = all;

function without(...signals: number[]): Uint8Array {
  const open = signalSet(...signals);
  return all.map((bits, i) => bits & ~open[i]!);
}

/**
 * Blocks every signal: before the engine starts threads, see `signals.ts`. Not SIGSYS: under a seccomp filter Bun handles
 * it, and a blocked one would end us. Not SIGPWR: the engine's collector suspends this thread by it, and would wait without
 * end. Both are blocked from the start of the command on, SIGPWR only where the event loop has not waited before.
 */
export function blockSignals(): void {
  if (linux) blocked = without(SIGSYS, SIGPWR);
  sigprocmask(SIG_BLOCK, address(blocked), address(maskAtStart));
  isBlocking = true;
  // Where children are ignored their exit status is lost, and not only the command's.
  ignoresChildren = signal(SIGCHLD, null) === SIG_IGN;
  if (!isPresent) return;
  record = BigInt(getauxval!(AT_FLAGS));
  if (record & PWR_WAS_BLOCKED) maskAtStart[(SIGPWR - 1) >> 3]! |= 1 << ((SIGPWR - 1) & 7);
  for (const number of BUN_IGNORES) if (!wasIgnored(number)) signal(number, null);
  for (const number of FAULTS) signal(number, null);
}

/** Signals that the command finds with their default action because Bun has ignored them, and nothing tells why. */
export const lostActions = (): readonly number[] => (isPresent ? [] : BUN_IGNORES);

/** Were ended children ignored at our start? The command's are ignored then, too. */
export const childrenWereIgnored = (): boolean => ignoresChildren;

/** The command gets the default action of SIGCHLD, however we were started. */
export function forgetIgnoredChildren(): void {
  ignoresChildren = false;
}

/**
 * Ignores what was ignored at our start and has been changed since. Call it directly before the command starts: we go on
 * with these signals blocked, and a blocked signal is kept for sigtimedwait(2) even where it is ignored.
 */
export function restoreIgnored(): void {
  blocked = engineSuspends ? without(SIGPWR) : all;
  blockAgain();
  if (!isPresent) return;
  if (engineSuspends) sigaction!(SIGPWR, null, address(engineAction));
  for (const number of [...FAULTS, SIGPWR, SIGSYS]) if (wasIgnored(number)) signal(number, SIG_IGN);
}

/** Gives SIGPWR back to the engine, where it needs it: call it directly after the command has started. */
export function restoreEngineSignal(): void {
  if (isPresent && engineSuspends) sigaction!(SIGPWR, address(engineAction), null);
}

/**
 * From now on a fault signal that another process sent reaches the thread that waits for it. One thread of the engine blocks
 * all signals but these, and would take it: then we end alone, and the command goes on. Not in the npm package, nor on macOS.
 */
export function passFaultsOn(): void {
  if (!isPresent) return;
  const action = new BigUint64Array(20); // handler, mask of 128 bytes, flags
  action[0] = BigInt(getauxval!(AT_ENTRY)) - HANDLER_BYTES;
  action[17] = HANDLER_FLAGS;
  for (const number of FAULTS) sigaction!(number, address(action), null);
}

/** Blocks what this thread blocks, after another mask. */
export const blockAgain = (): void => changeMask(SIG_BLOCK, blocked);

/**
 * Leaves SIGPWR to the engine for good, also beside a command: for a process whose event loop waits. The engine would wait
 * without end for a thread that blocks or ignores it. One that is sent to us is lost.
 */
export function leaveEngineSignal(): void {
  if (!linux) return;
  engineSuspends = true;
  changeMask(SIG_UNBLOCK, signalSet(SIGPWR));
}

/** Ignores ended children again, for a program that this one becomes. */
export function ignoreChildren(): void {
  signal(SIGCHLD, SIG_IGN);
}

/** Restores the mask that we were started with: for the command that this process becomes. */
export function unblockSignals(): void {
  setMask(maskAtStart);
}

/** The mask that we were started with, less the engine's signal: for our own code. */
export const ownMask = (): typeof maskAtStart =>
  linux ? maskAtStart.map((bits, i) => bits & ~signalSet(SIGPWR)[i]!) : maskAtStart;

/**
 * For a command of ours that does not wait for signals, and starts no other program in its place. A write beyond the limit on
 * file sizes fails, and does not end us.
 */
export function unblockForOurselves(): void {
  setMask(ownMask());
  signal(SIGXFSZ, SIG_IGN);
}

/**
 * Drops the signal of a write that has just failed with EFBIG: where it is blocked it would stay pending, and count as one
 * that is meant for the command. setrlimit(2).
 */
export function dropFileSizeSignal(): void {
  signal(SIGXFSZ, signal(SIGXFSZ, SIG_IGN)); // to ignore a signal takes away a pending one: sigaction(2)
}

/** Replaces the mask. */
export function setMask(mask: Uint8Array): void {
  sigprocmask(SIG_SETMASK, address(mask), null);
}

/** Adds signals to the mask (SIG_BLOCK), or takes them out (SIG_UNBLOCK). */
export function changeMask(how: number, signals: Uint8Array): void {
  sigprocmask(how, address(signals), null);
}

/** Signal masks of a thread that sits in a system call. */
export interface ThreadMasks {
  how: number;
  /** While it runs JavaScript. */
  running: Uint8Array;
  /** While it is in the system call. */
  waiting: Uint8Array;
}

/**
 * Each signal has one thread that takes it. Signals that this thread has not blocked stay with it; the others go to the
 * thread that waits, so that a signal ends the wait, or the process, at once. A signal that was blocked at our start goes
 * to none. SIGPWR stays open: the engine suspends the thread by it when it ends it.
 */
export function masksOfWaitingThread(): ThreadMasks {
  const { pthread_sigmask } = libc({ pthread_sigmask: { args: ["i32", "ptr", "ptr"], returns: "i32" } });
  const mine = new Uint8Array(all.length);
  pthread_sigmask(SIG_BLOCK, null, address(mine));
  const atStart = isBlocking ? maskAtStart : mine;
  const open = signalSet(...(linux ? [SIGPWR, SIGURG] : [SIGURG]));
  const running = all.map((bits, i) => bits & ~(linux ? signalSet(SIGPWR)[i]! : 0));
  const waiting = all.map((bits, i) => bits & (~mine[i]! | atStart[i]!) & ~open[i]!);
  return { how: SIG_SETMASK, running, waiting };
}
