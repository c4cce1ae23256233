/** Which thread takes which signal: sets of signals, and a way to wake a thread out of a system call. */
import { address, libc } from "./libc.ts";

const linux = process.platform === "linux";

/** Numbers that differ between the two systems: `signal(7)`, `sigprocmask(2)`. */
const SIGURG = linux ? 23 : 16;
export const SIG_BLOCK = linux ? 0 : 1;
export const SIG_UNBLOCK = linux ? 1 : 2;
export const SIG_SETMASK = linux ? 2 : 3;

/** Room for a `sigset_t`. */
const SIGSET_BYTES = 128;

/**
 * Every signal that a thread may block. Not those of a fault, which must end the program; nor SIGPWR, by which
 * JavaScriptCore stops its threads for a collection on Linux; nor the C library's own two.
 * A literal, because a loop that computes it is hot enough to start the engine's compiler threads, which must
 * start after the main thread has blocked its signals: see `os/signals.ts`.
 */
export function allSignals(): Uint8Array {
  const set = new Uint8Array(SIGSET_BYTES);
  set.set(linux ? [0x07, 0xfa, 0xfb, 0x1f, 0xfe, 0xff, 0xff, 0xff] : [0x47, 0xf0, 0xfe, 0x7f]);
  return set;
}

/** A `sigset_t` of these signals. */
export function signalSet(...signals: number[]): Uint8Array {
  const set = new Uint8Array(SIGSET_BYTES);
  for (const signal of signals) set[(signal - 1) >> 3]! |= 1 << ((signal - 1) & 7);
  return set;
}

/** The masks of a thread that sits in a system call for us. */
export interface ThreadMasks {
  how: number;
  /** While it runs JavaScript. */
  running: Uint8Array;
  /** While it is in the system call. */
  waiting: Uint8Array;
}

/**
 * Each signal has one thread that takes it. What this thread has not blocked stays with it; what it has blocked
 * goes to the thread that waits, so that a signal ends the wait, or the process, at once.
 */
export function masksOfWaitingThread(): ThreadMasks {
  const { pthread_sigmask } = libc({
    pthread_sigmask: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  });
  const running = allSignals();
  const ours = new Uint8Array(SIGSET_BYTES);
  pthread_sigmask(SIG_BLOCK, null, address(ours));
  const wake = signalSet(SIGURG);
  const waiting = running.map((bits, i) => bits & ~ours[i]! & ~wake[i]!);
  return { how: SIG_SETMASK, running, waiting };
}

/** Numbers of the signals by which a program is told from outside to end; the same everywhere. */
const ENDING = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
const SIG_IGN = 1n;

/** Is this signal ignored, as nohup(1) and a shell's `&` have it? */
export function isIgnored(signal: keyof typeof ENDING | number): boolean {
  const { sigaction } = libc({ sigaction: { args: ["i32", "ptr", "ptr"], returns: "i32" } });
  const action = new BigUint64Array(20); // its first field is the handler: sigaction(2)
  const number = typeof signal === "number" ? signal : ENDING[signal];
  return sigaction(number, null, address(action)) === 0 && action[0] === SIG_IGN;
}

let wakers = 0;
let previousAction: number | null = null;
let threads: ReturnType<typeof threadFunctions> | undefined;

function threadFunctions() {
  return libc({
    signal: { args: ["i32", "ptr"], returns: "ptr" },
    siginterrupt: { args: ["i32", "i32"], returns: "i32" },
    pthread_kill: { args: ["u64", "i32"], returns: "i32" },
    abs: { args: ["i32"], returns: "i32" },
  });
}

/** Wakes a thread. */
export interface Waker extends Disposable {
  wake(thread: bigint): void;
}

/**
 * Makes a thread leave a blocking system call with `EINTR`: a signal whose handler does nothing, sent to that
 * thread. SIGURG, because it is ignored by default and nobody sends it. The handler is libc's `abs`: a function
 * of one int without a side effect, safe at any moment.
 */
export function threadWaker(): Waker {
  threads ??= threadFunctions();
  const t = threads;
  if (wakers++ === 0) {
    previousAction = t.signal(SIGURG, t.abs.ptr);
    t.siginterrupt(SIGURG, 1);
  }
  return {
    wake: (thread: bigint) => {
      t.pthread_kill(thread, SIGURG);
    },
    [Symbol.dispose]() {
      if (--wakers === 0) t.signal(SIGURG, previousAction);
    },
  };
}
