/**
 * Waits in the kernel's queue without blocking the caller: a thread that sits in flock(2).
 *
 * Order: flock(2) promises none. Linux keeps the waiters of a lock in a chain and wakes them one at a time, in the order
 * in which they came (fs/locks.c, `__locks_insert_block`), so a release is not a stampede.
 */
import { LOCK } from "./flock.ts";
import { type Code, errorCode, startThread } from "./libc.ts";
import { masksOfWaitingThread, type ThreadMasks } from "./signal-mask.ts";
import { threadWaker } from "./signal-sets.ts";

/** Indices into memory shared with the thread: the number of calls so far, and the arguments of the last one. */
const [CALLS, FD, OPERATION] = [0, 1, 2];

/** Added to an operation: unlock as soon as the lock is taken. */
const PASS = 16;

const FUNCTIONS = {
  flock: { args: ["i32", "i32"], returns: "i32" },
  pthread_self: { args: [], returns: "u64" },
  pthread_sigmask: { args: ["i32", "ptr", "ptr"], returns: "i32" },
} as const;

/**
 * The thread's program. Between two calls it sits in `Atomics.wait`, not in its event loop: there Bun waits with
 * epoll_pwait2(2) and an empty signal mask, so the thread would take signals that must stay blocked. In a wrapper whose
 * command has just begun such a signal would end the wrapper and never reach the command.
 */
const program = ({ how, running, waiting }: ThreadMasks) => `
const running = new Uint8Array([${running}]);
const waiting = new Uint8Array([${waiting}]);
c.pthread_sigmask(${how}, ptr(running), null);
self.onmessage = ({ data: control }) => {
  postMessage(c.pthread_self());
  for (let calls = 0; ; calls++) {
    while (Atomics.load(control, ${CALLS}) === calls) Atomics.wait(control, ${CALLS}, calls);
    c.pthread_sigmask(${how}, ptr(waiting), null);
    const [fd, operation] = [control[${FD}], control[${OPERATION}]];
    const result = c.flock(fd, operation & ~${PASS}) < 0 ? errno() : 0;
    if (result === 0 && operation & ${PASS}) c.flock(fd, ${LOCK.UN});
    c.pthread_sigmask(${how}, ptr(running), null);
    postMessage(result);
  }
};
`;

/** Milliseconds between signals to a thread that should leave flock(2): the first may come just before it enters. */
const WAKE_INTERVAL = 2;

let kept: Worker[] | undefined;

/**
 * Keeps the threads of finished waits alive, idle, until the returned function is called: for a process that starts a
 * command. A thread that is ending has closed some of its descriptors and not yet others, and may start threads of its
 * own. While the process becomes another program the kernel refuses those (`EAGAIN`, copy_fs in kernel/fork.c), and the
 * engine aborts.
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
    this.#worker = startThread(FUNCTIONS, program(masksOfWaitingThread()));
    const thread = this.#answer(this.#worker).then(BigInt);
    this.#worker.postMessage(this.#control);
    return thread;
  }

  /** The thread's next message. */
  #answer(worker: Worker): Promise<number | bigint> {
    return new Promise((resolve, reject) => {
      worker.onmessage = (event: MessageEvent) => resolve(event.data as number | bigint);
      worker.onerror = (event: ErrorEvent) =>
        reject(new Error(`the waiting thread failed: ${event.message}`));
    });
  }

  /**
   * flock(2) in the thread.
   * @returns the code of the failure, undefined when the lock is taken; `EINTR` when `signal` fired first
   */
  async flock(fd: number, operation: number, signal?: AbortSignal): Promise<Code | undefined> {
    this.#thread ??= this.#start();
    const thread = await this.#thread;
    signal?.throwIfAborted();
    const answer = this.#answer(this.#worker!);
    this.#call(fd, operation);
    let repeated: Timer | undefined;
    const wake = () => {
      this.#waker.wake(thread);
      repeated ??= setInterval(() => this.#waker.wake(thread), WAKE_INTERVAL);
    };
    signal?.addEventListener("abort", wake);
    try {
      const errno = Number(await answer);
      return errno === 0 ? undefined : errorCode(errno);
    } finally {
      clearInterval(repeated);
      signal?.removeEventListener("abort", wake);
    }
  }

  /** Waits until the lock can be taken, and unlocks at once: the thread does both, so it is held for microseconds. */
  pass(fd: number, operation: number, signal?: AbortSignal): Promise<Code | undefined> {
    return this.flock(fd, operation | PASS, signal);
  }

  #call(fd: number, operation: number): void {
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
