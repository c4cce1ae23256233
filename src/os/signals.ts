/**
 * Signals by libc's own calls.
 *
 * They are waited for with sigtimedwait(2): it says who sent them, which no handler in JavaScript learns, and it
 * needs no event loop. For that every thread must have them blocked. A signal is for the whole process: where one
 * thread takes it the kernel lets it, and the default action of most ends us, that of SIGCHLD loses it. Threads
 * get the mask of the one that starts them; so the main thread blocks all before the engine has started its
 * compiler threads, which it does as soon as any function is hot. Hence: `main.ts` blocks them before it imports anything else (`signal-mask.ts`).
 */
import { address, close, libc, O, open } from "./libc.ts";
import { maskAtStart } from "./signal-mask.ts";
import { allSignals, SIG_BLOCK, SIG_SETMASK, SIG_UNBLOCK, signalSet } from "./signal-sets.ts";

const linux = process.platform === "linux";

/** Signal numbers, signal(7). */
export const SIG = {
  HUP: 1,
  INT: 2,
  QUIT: 3,
  KILL: 9,
  PIPE: 13,
  TERM: 15,
  CHLD: linux ? 17 : 20,
  CONT: linux ? 18 : 19,
  STOP: linux ? 19 : 17,
  TSTP: linux ? 20 : 18,
  TTIN: 21,
  TTOU: 22,
  XFSZ: 25,
  WINCH: 28,
} as const;

const RLIMIT_CORE = 4;

const c = libc({
  sigprocmask: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  // The third argument is sigtimedwait's alone.
  [linux ? "sigtimedwait" : "sigwait"]: { args: ["ptr", "ptr", "ptr"], returns: "i32" },
  setitimer: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  getitimer: { args: ["i32", "ptr"], returns: "i32" },
  signal: { args: ["i32", "ptr"], returns: "ptr" },
  kill: { args: ["i32", "i32"], returns: "i32" },
  getpgrp: { args: [], returns: "i32" },
  getsid: { args: ["i32"], returns: "i32" },
  tcgetpgrp: { args: ["i32"], returns: "i32" },
  setrlimit: { args: ["i32", "ptr"], returns: "i32" },
  _exit: { args: ["i32"], returns: "void" },
});

const all = allSignals();

/** Lets the signals that came so far have their effect on us. No thread may be started in between. */
export function takePendingSignals(): void {
  interruptible(() => {});
}

/** Makes a system call that a signal may end, or us in it. No thread may be started in between. */
export function interruptible<T>(call: () => T, mask = maskAtStart): T {
  c.sigprocmask!(SIG_SETMASK, address(mask), null);
  const result = call();
  c.sigprocmask!(SIG_BLOCK, address(all), null);
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
const SIGALRM = 14;
const ITIMER_REAL = 0;

/** Upper bound of one wait: a thread that has a signal unblocked may have consumed it, and it never comes again. */
const WAIT_SECONDS = 1n;
const waitLimit = new BigInt64Array([WAIT_SECONDS, 0n]); // struct timespec
const oneShot = new BigInt64Array([0n, 0n, WAIT_SECONDS, 0n]); // struct itimerval: interval, value
const remaining = new BigInt64Array(4);

/** The next signal that was sent to us; undefined when none came within a second. */
export function nextSignal(): ReceivedSignal | undefined {
  if (!linux) return nextSignalOfMacOS();
  const signal = c.sigtimedwait!(address(all), address(siginfo), address(waitLimit));
  if (signal <= 0) return undefined;
  return { signal, fromKernel: siginfo[2]! > 0, sender: siginfo[2]! > 0 ? 0 : siginfo[4]! };
}

/** macOS has no sigtimedwait(2): a one-shot timer ends the wait. Its signal is told from another by what is left of it. */
function nextSignalOfMacOS(): ReceivedSignal | undefined {
  c.setitimer!(ITIMER_REAL, address(oneShot), null);
  if (c.sigwait!(address(all), address(siginfo), null) !== 0) return undefined;
  c.getitimer!(ITIMER_REAL, address(remaining));
  const signal = siginfo[0]!;
  if (signal === SIGALRM && remaining[2] === 0n && remaining[3] === 0n) return undefined;
  // macOS does not report the sender. A terminal's signals come while we are in its foreground.
  return { signal, fromKernel: inForeground(), sender: 0 };
}

/** Sends a signal; that the process is gone is no error. */
export function send(pid: number, signal: number): void {
  c.kill!(pid, signal);
}

/** The default action for a signal. A pending one whose default is to be ignored is gone with this, sigaction(2). */
export function setDefault(signal: number): void {
  c.signal!(signal, null);
}

/** Is our process group the one that the terminal sends its signals to? */
export function inForeground(): boolean {
  const terminal = open("/dev/tty", O.RDONLY | O.CLOEXEC | O.NONBLOCK);
  if (terminal < 0) return false;
  const foreground = c.tcgetpgrp!(terminal) === c.getpgrp!();
  close(terminal);
  return foreground;
}

/** Is this process the leader of its session? A terminal that goes away tells its leader alone. */
export const isSessionLeader = (): boolean => c.getsid!(0) === process.pid;

/** Lets a signal have its default effect on this process, and returns if that is not its end. */
export function suffer(signal: number): void {
  const one = address(signalSet(signal));
  c.signal!(signal, null);
  c.kill!(process.pid, signal);
  c.sigprocmask!(SIG_UNBLOCK, one, null);
  c.sigprocmask!(SIG_BLOCK, one, null);
}

/** Ends this process at once by a signal that killed the command, without a core dump of ours. */
export function dieOf(signal: number): never {
  c.setrlimit!(RLIMIT_CORE, address(new BigUint64Array(2)));
  suffer(signal);
  return exit(128 + signal);
}

/** Ends this process at once: nothing of ours has anything left to do. */
export function exit(status: number): never {
  c._exit!(status);
  throw new Error("unreachable");
}
