/**
 * Watches the command where the event loop must go on, because a lease has to be renewed meanwhile.
 *
 * The loop lets signals through while it waits (Bun calls epoll_pwait2(2) with an empty mask), so `supervise`, which waits
 * with sigtimedwait(2), would miss them. They come to handlers instead, which do not learn the sender: a terminal's signals
 * are recognized by our being in its foreground. Changes of the command are found by a thread, in waitid(2).
 */
import { constants } from "node:os";
import { type Ending, startChildThread } from "../../os/child-process.ts";
import { isIgnored } from "../../os/signal-sets.ts";
import { releaseKeptSignals, surviveUnnamedSignals } from "../../os/signals.ts";
import { inForeground } from "../../os/terminal.ts";
import { Supervision } from "./supervise.ts";

/**
 * Signals to us that are meant for the command. Those of a fault are blocked while our code runs: a real fault still ends us.
 * Missing are SIGPWR, which the engine uses, and those for which JavaScript has no listeners.
 */
const FORWARDED = [
  ...(["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCONT"] as const),
  ...(["SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGWINCH", "SIGVTALRM", "SIGPROF", "SIGXCPU", "SIGIO"] as const),
  ...(["SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV", "SIGSYS", "SIGXFSZ"] as const),
];

/** A thread that reports the command's changes. From its start on, signals to us are kept for the command. */
export class ChildThread {
  readonly #worker: Worker;
  readonly #early: number[] = [];
  #take = (signal: number): void => void this.#early.push(signal);

  private constructor(worker: Worker) {
    this.#worker = worker;
    releaseKeptSignals();
    surviveUnnamedSignals();
    for (const name of FORWARDED) {
      const signal = constants.signals[name];
      if (!isIgnored(signal)) process.on(name, () => this.#take(signal));
    }
  }

  static async start(): Promise<ChildThread> {
    const worker = startChildThread();
    await new Promise<void>((resolve, reject) => {
      worker.onmessage = () => resolve();
      worker.onerror = ({ message }) =>
        reject(new Error(`the thread that waits for the command failed: ${message}`));
    });
    return new ChildThread(worker);
  }

  /** From now on signals to us are handed to this function: the command has ended, and what it left may be meant. */
  forwardTo(take: (signal: number) => void): void {
    this.#take = take;
  }

  /** Waits for the command's end. Each signal that we get reaches the command once. @param seen as in `Supervision` */
  supervise(pid: number, seen?: Set<number>): Promise<Ending> {
    const supervision = new Supervision(pid, seen);
    const over = Promise.withResolvers<Ending>();
    const poll = () => {
      const ending = supervision.poll();
      if (ending !== undefined) over.resolve(ending);
      else this.#worker.postMessage(pid);
    };
    this.#worker.onmessage = poll;
    this.#take = (signal) => supervision.take({ signal, fromKernel: inForeground(), sender: 0 });
    for (const signal of this.#early) this.#take(signal);
    poll();
    return over.promise;
  }
}
