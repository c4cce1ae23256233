/**
 * Signals by libc's own calls.
 *
 * They are waited for with sigwaitinfo(2): it says who sent them, which no handler in JavaScript learns, and it
 * needs no event loop. For that every thread must have them blocked. A signal is for the whole process: where one
 * thread takes it the kernel lets it, and the default action of most ends us, that of SIGCHLD loses it. Threads
 * get the mask of the one that starts them; so the main thread blocks all before the engine has started its
 * compiler threads, which it does as soon as any function is hot. Hence: `main.ts` imports `block.ts` before all else.
 */
import { address, close, libc, O, open } from "../store/kernel.ts";
import { allSignals, SIG_BLOCK, SIG_SETMASK, SIG_UNBLOCK, signalSet } from "../store/signals.ts";

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
  [linux ? "sigwaitinfo" : "sigwait"]: { args: ["ptr", "ptr"], returns: "i32" },
  signal: { args: ["i32", "ptr"], returns: "ptr" },
  kill: { args: ["i32", "i32"], returns: "i32" },
  getpgrp: { args: [], returns: "i32" },
  getsid: { args: ["i32"], returns: "i32" },
  tcgetpgrp: { args: ["i32"], returns: "i32" },
  setrlimit: { args: ["i32", "ptr"], returns: "i32" },
  _exit: { args: ["i32"], returns: "void" },
});

const all = allSignals();

/** Where the first half of a binary that goes over to the whole of itself (build.ts) leaves the mask to the second. */
const kept = globalThis as { exclusiveMaskAtStart?: Uint8Array };

/** The mask that we were started with: the command's too. */
export const maskAtStart = kept.exclusiveMaskAtStart ?? new Uint8Array(all.length);

/** Blocks every signal: before the engine starts threads, see above. */
export function blockSignals(): void {
  if (kept.exclusiveMaskAtStart === undefined) c.sigprocmask!(SIG_BLOCK, address(all), address(maskAtStart));
}

/** For the second half: signals stay blocked in between, as the engine starts threads just then. */
export function keepMask(): void {
  kept.exclusiveMaskAtStart = maskAtStart;
}

/** Back to the mask that we were started with: for commands that wait for no signals. */
export function unblockSignals(): void {
  c.sigprocmask!(SIG_SETMASK, address(maskAtStart), null);
}

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

/** Waits for the next signal. */
export function nextSignal(): ReceivedSignal {
  for (;;) {
    if (!linux) {
      if (c.sigwait!(address(all), address(siginfo)) !== 0) continue;
      // macOS does not say who sent it. A terminal's signals come while we are in its foreground.
      return {
        signal: siginfo[0]!,
        fromKernel: inForeground(),
        sender: 0,
      };
    }
    const signal = c.sigwaitinfo!(address(all), address(siginfo));
    if (signal > 0) return { signal, fromKernel: siginfo[2]! > 0, sender: siginfo[2]! > 0 ? 0 : siginfo[4]! };
  }
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
