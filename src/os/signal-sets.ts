/** Sets of signals and their actions: which are blocked, ignored, or only interrupt. */
import { address, type CFunction, libc, linux } from "./libc.ts";

/** Numbers that differ between the two systems: signal(7), sigprocmask(2). */
export const SIGURG = linux ? 23 : 16;
export const SIGCHLD = linux ? 17 : 20;
export const SIGSYS = linux ? 31 : 12;
/** The engine suspends threads by it, on Linux alone. */
export const SIGPWR = 30;
export const SIG_BLOCK = linux ? 0 : 1;
export const SIG_UNBLOCK = linux ? 1 : 2;
export const SIG_SETMASK = linux ? 2 : 3;

/** Room for a `sigset_t`. */
const SIGSET_BYTES = 128;

/**
 * Every signal, on Linux those of a fault included: there a real fault ends the program even where its signal is blocked.
 * Without the two that the C library reserves. A literal, because a loop that computes it is hot enough to start the engine's compiler
 * threads, which must start after the main thread has blocked its signals: see `signals.ts`.
 */
export function allSignals(): Uint8Array {
  const set = new Uint8Array(SIGSET_BYTES);
  set.set(linux ? [0xff, 0xff, 0xff, 0x7f, 0xfe, 0xff, 0xff, 0xff] : [0x67, 0xf8, 0xfe, 0x7f]);
  return set;
}

/** A `sigset_t` of these signals. */
export function signalSet(...signals: number[]): Uint8Array {
  const set = new Uint8Array(SIGSET_BYTES);
  for (const signal of signals) set[(signal - 1) >> 3]! |= 1 << ((signal - 1) & 7);
  return set;
}

/** Numbers of the signals by which a program is asked to end; the same everywhere. */
const ENDING = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
/** SIG_IGN of signal(2), the same everywhere. */
export const SIG_IGN = 1;

/** Is this signal ignored, as nohup(1) and a shell's `&` have it? */
export function isIgnored(signal: keyof typeof ENDING | number): boolean {
  const { sigaction } = libc({ sigaction: { args: ["i32", "ptr", "ptr"], returns: "i32" } });
  const action = new BigUint64Array(20); // its first field is the handler: sigaction(2)
  const number = typeof signal === "number" ? signal : ENDING[signal];
  return sigaction(number, null, address(action)) === 0 && action[0] === BigInt(SIG_IGN);
}

let functions: Record<"signal" | "siginterrupt" | "abs", CFunction> | undefined;
function actions() {
  functions ??= libc({
    signal: { args: ["i32", "ptr"], returns: "ptr" },
    siginterrupt: { args: ["i32", "i32"], returns: "i32" },
    abs: { args: ["i32"], returns: "i32" },
  });
  return functions;
}

/** Sets the default action. A pending signal whose default is to be ignored is dropped by this: sigaction(2). */
export function setDefault(signal: number): void {
  actions().signal(signal, null);
}

/**
 * Makes a signal end blocking system calls with `EINTR` and do nothing else, until the result is disposed of. The
 * handler is the C library's `abs`: a function of one int without a side effect, safe at any moment.
 */
export function interruptWith(signal: number): Disposable {
  const { signal: setAction, siginterrupt, abs } = actions();
  const before = setAction(signal, abs.ptr);
  siginterrupt(signal, 1);
  return { [Symbol.dispose]: () => void setAction(signal, before) };
}

let wakers = 0;
let handler: Disposable | undefined;
let pthreadKill: CFunction | undefined;

/** Wakes a thread. */
export interface Waker extends Disposable {
  wake(thread: bigint): void;
}

/** Ends a thread's blocking system call. By SIGURG, because it is ignored by default and hardly ever sent. */
export function threadWaker(): Waker {
  pthreadKill ??= libc({ pthread_kill: { args: ["u64", "i32"], returns: "i32" } }).pthread_kill;
  const send = pthreadKill;
  if (wakers++ === 0) handler = interruptWith(SIGURG);
  return {
    wake: (thread) => void send(thread, SIGURG),
    [Symbol.dispose]() {
      if (--wakers === 0) handler?.[Symbol.dispose]();
    },
  };
}
