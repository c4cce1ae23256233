/**
 * Watching the command where the event loop must go on, because a lease has to be renewed meanwhile.
 *
 * The loop lets signals through while it waits (Bun calls epoll_pwait2(2) with an empty mask), so they cannot be waited
 * for with sigwaitinfo(2), as `supervise` does. They come to handlers instead, and those are not told who sent them:
 * what a terminal sends to its foreground group is known by our being in it. How the command changes is found out by a
 * thread, in waitid(2).
 */
import { constants } from "node:os";
import { LIBC_NAMES } from "../../os/libc.ts";
import { isIgnored } from "../../os/signal-sets.ts";
import { inForeground } from "../../os/signals.ts";
import { type Ending, Supervision } from "./supervise.ts";

const linux = process.platform === "linux";

const P_PID = 1;
/** Exited, stopped or continued; and the change stays there for who asks after us. */
const CHANGES = linux ? 0x0100000e : 0x3c;

/** The thread's program: text, as that of `os/flock-thread.ts` is. */
const program = `
import { dlopen, ptr } from "bun:ffi";
let c;
for (const name of ${JSON.stringify(LIBC_NAMES)}) {
  try {
    c = dlopen(name, { waitid: { args: ["i32", "i32", "ptr", "i32"], returns: "i32" } }).symbols;
    break;
  } catch {}
}
const info = new Int32Array(32);
self.onmessage = ({ data: pid }) => postMessage(c.waitid(${P_PID}, pid, ptr(info), ${CHANGES}));
postMessage("ready");
`;

/** What a process may be sent that is meant for the command. */
const FORWARDED = [
  ...(["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCONT"] as const),
  ...(["SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGWINCH", "SIGVTALRM", "SIGPROF", "SIGXCPU", "SIGIO"] as const),
];

/** A thread that tells of the command's changes; and from its start on signals to us are kept for the command. */
export class ChildThread {
  readonly #worker: Worker;
  readonly #early: number[] = [];
  #take = (signal: number): void => void this.#early.push(signal);

  private constructor(worker: Worker) {
    this.#worker = worker;
    for (const name of FORWARDED) {
      if (!isIgnored(constants.signals[name])) process.on(name, () => this.#take(constants.signals[name]));
    }
  }

  static async start(): Promise<ChildThread> {
    const url = URL.createObjectURL(new Blob([program], { type: "application/javascript" }));
    const worker = new Worker(url);
    await new Promise<void>((resolve, reject) => {
      worker.onmessage = () => resolve();
      worker.onerror = ({ message }) =>
        reject(new Error(`the thread that waits for the command failed: ${message}`));
    });
    return new ChildThread(worker);
  }

  /** Waits for the command's end. Each signal that we get reaches the command once. */
  supervise(pid: number): Promise<Ending> {
    const supervision = new Supervision(pid);
    const over = Promise.withResolvers<Ending>();
    const look = () => {
      const ending = supervision.poll();
      if (ending !== undefined) over.resolve(ending);
      else this.#worker.postMessage(pid);
    };
    this.#worker.onmessage = look;
    this.#take = (signal) => supervision.take({ signal, fromKernel: inForeground(), sender: 0 });
    for (const signal of this.#early) this.#take(signal);
    look();
    return over.promise;
  }
}
