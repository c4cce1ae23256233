/**
 * Waiting in the kernel's queue without blocking the caller: a thread that sits in `flock(2)`.
 *
 * Order: flock(2) promises none. Linux keeps the waiters of a lock in a chain and wakes them one at a time,
 * in the order in which they came (fs/locks.c, `__locks_insert_block`), so a release is not a stampede.
 */
import { LIBC_NAMES } from "./libc.ts";
import { masksOfWaitingThread, type ThreadMasks, threadWaker } from "./signal-sets.ts";

/** What the thread is told, in memory that it shares with us: how many calls so far, and of the last one the arguments. */
const [CALLS, FD, OPERATION] = [0, 1, 2];

/**
 * The thread's program. Between two calls it sits in `Atomics.wait`, not in its event loop: there Bun waits with
 * epoll_pwait2(2) and an empty signal mask, so that the thread would take the signals that are to stay blocked. In a
 * wrapper whose command has just begun such a signal would end the wrapper, and the command would never get it.
 *
 * It is kept as text, so that it is there in a script, in a bundle and in a program compiled by somebody else alike.
 */
const program = ({ how, running, waiting }: ThreadMasks) => `
import { dlopen, ptr, read } from "bun:ffi";
let c;
for (const name of ${JSON.stringify(LIBC_NAMES)}) {
  try {
    c = dlopen(name, {
      flock: { args: ["i32", "i32"], returns: "i32" },
      pthread_self: { args: [], returns: "u64" },
      pthread_sigmask: { args: ["i32", "ptr", "ptr"], returns: "i32" },
      ${process.platform === "linux" ? "__errno_location" : "__error"}: { args: [], returns: "ptr" },
    }).symbols;
    break;
  } catch {}
}
const errno = c.${process.platform === "linux" ? "__errno_location" : "__error"}();
const running = new Uint8Array([${running}]);
const waiting = new Uint8Array([${waiting}]);
c.pthread_sigmask(${how}, ptr(running), null);
self.onmessage = ({ data: control }) => {
  postMessage(c.pthread_self());
  for (let calls = 0; ; calls++) {
    while (Atomics.load(control, ${CALLS}) === calls) Atomics.wait(control, ${CALLS}, calls);
    c.pthread_sigmask(${how}, ptr(waiting), null);
    let result = c.flock(control[${FD}], control[${OPERATION}]);
    if (result < 0) result = -read.i32(errno, 0);
    c.pthread_sigmask(${how}, ptr(running), null);
    postMessage(result);
  }
};
`;

/** How often a thread that should leave `flock(2)` is told so again: the first time may come just before it enters. */
const WAKE_INTERVAL = 2;

let kept: Worker[] | undefined;

/**
 * From now on threads that are done with live on, idle, until the function that this returns is called. For whoever
 * starts a command: a thread that is ending has closed some of its descriptors and not yet others, and may start
 * threads of its own. While the process becomes another program the kernel refuses those (`EAGAIN`, copy_fs in
 * kernel/fork.c), and the engine aborts.
 */
export function keepThreads(): () => void {
  const threads: Worker[] = [];
  kept = threads;
  return () => {
    kept = undefined;
    for (const thread of threads) thread.terminate();
  };
}

/** A thread that waits for locks, one at a time; started when first needed. Dispose of it when the wait is over. */
export class Waiter {
  #worker: Worker | undefined;
  readonly #control = new Int32Array(new SharedArrayBuffer(12));
  #thread: Promise<bigint> | undefined;
  #waker = threadWaker();

  #start(): Promise<bigint> {
    const source = program(masksOfWaitingThread());
    const url = URL.createObjectURL(new Blob([source], { type: "application/javascript" }));
    this.#worker = new Worker(url);
    const thread = this.#answer(this.#worker).then(BigInt);
    this.#worker.postMessage(this.#control);
    thread.finally(() => URL.revokeObjectURL(url)).catch(() => {});
    return thread;
  }

  /** The thread's next word. */
  #answer(worker: Worker): Promise<number | bigint> {
    return new Promise((resolve, reject) => {
      worker.onmessage = (event: MessageEvent) => resolve(event.data as number | bigint);
      worker.onerror = (event: ErrorEvent) =>
        reject(new Error(`the waiting thread failed: ${event.message}`));
    });
  }

  /**
   * `flock(2)` in the thread.
   * @returns 0 when the lock is taken, or minus the errno; -EINTR when `signal` fired first
   */
  async flock(fd: number, operation: number, signal?: AbortSignal): Promise<number> {
    this.#thread ??= this.#start();
    const thread = await this.#thread;
    signal?.throwIfAborted();
    const worker = this.#worker!;
    const answer = this.#answer(worker);
    this.#tell(fd, operation);
    let nagging: Timer | undefined;
    const wake = () => {
      this.#waker.wake(thread);
      nagging ??= setInterval(() => this.#waker.wake(thread), WAKE_INTERVAL);
    };
    signal?.addEventListener("abort", wake);
    try {
      return Number(await answer);
    } finally {
      clearInterval(nagging);
      signal?.removeEventListener("abort", wake);
    }
  }

  #tell(fd: number, operation: number): void {
    this.#control[FD] = fd;
    this.#control[OPERATION] = operation;
    Atomics.add(this.#control, CALLS, 1);
    Atomics.notify(this.#control, CALLS);
  }

  [Symbol.dispose](): void {
    if (this.#worker !== undefined) {
      if (kept !== undefined) kept.push(this.#worker);
      else this.#worker.terminate();
    }
    this.#waker[Symbol.dispose]();
  }
}
