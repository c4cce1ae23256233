/** A limit on how long the main thread sits in a system call. */
import { address, libc } from "./libc.ts";
import { maskAtStart } from "./signal-mask.ts";
import { signalSet } from "./signal-sets.ts";

const SIGALRM = 14;
const ITIMER_REAL = 0;
/** The largest that every system's setitimer(2) takes. */
const LONGEST = 100_000_000;
/** The first signal may come just before the system call that it is to interrupt: it is sent again, in microseconds. */
const AGAIN = 5000n;

/** From now on, `interruptible` system calls end with `EINTR` once the time is over, until it is disposed of. */
export class Alarm implements Disposable {
  readonly #deadline: number;
  readonly #action: number;
  /** What is blocked in such a system call: not the signal, even if it was when we were started. */
  readonly mask = maskAtStart.map((bits, i) => bits & ~signalSet(SIGALRM)[i]!);
  readonly #c = libc({
    signal: { args: ["i32", "ptr"], returns: "ptr" },
    siginterrupt: { args: ["i32", "i32"], returns: "i32" },
    setitimer: { args: ["i32", "ptr", "ptr"], returns: "i32" },
    abs: { args: ["i32"], returns: "i32" },
  });

  /** @param seconds more than 0 */
  constructor(seconds: number) {
    this.#deadline = performance.now() + seconds * 1000;
    // A handler of one int without a side effect: it interrupts, and the clock says whether it was time.
    this.#action = this.#c.signal(SIGALRM, this.#c.abs.ptr);
    this.#c.siginterrupt(SIGALRM, 1);
    const first = BigInt(Math.ceil(Math.min(seconds, LONGEST) * 1e6));
    this.#set(AGAIN, first);
  }

  get expired(): boolean {
    return performance.now() >= this.#deadline;
  }

  #set(interval: bigint, first: bigint): void {
    const million = 1_000_000n;
    const itimerval = new BigInt64Array([
      interval / million,
      interval % million,
      first / million,
      first % million,
    ]);
    this.#c.setitimer(ITIMER_REAL, address(itimerval), null);
  }

  [Symbol.dispose](): void {
    this.#set(0n, 0n);
    this.#c.signal(SIGALRM, this.#action);
  }
}
