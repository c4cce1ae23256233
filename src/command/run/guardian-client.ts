/** The wrapper's end of its guardian: see `guardian.ts`. */
import { LockLost, printable, StoreError } from "../../errors.ts";
import type { Mode } from "../../holder.ts";
import { clock } from "../../os/clock.ts";
import { ourselves } from "../../os/self.ts";
import { GUARDIAN } from "../cli/exit-status.ts";
import type { Mark } from "./process-tree.ts";

/** What the guardian is to do. It comes by a pipe: argv could be seen by others. */
export interface Order {
  url: string;
  ttl: number;
  name: string;
  mode: Mode;
  label?: string | undefined;
  /** How the command's processes can be known. */
  mark: Mark;
  wrapper: number;
}

/** What the wrapper says, a line each. */
export type ToGuardian =
  | { order: Order }
  /** Until when the main lock is proven to be ours, on `clock()`. */
  | { deadline: number }
  /** The command is being started: from now on there may be one. */
  | { starting: true }
  | { command: number }
  /** The wrapper stops the command itself. */
  | { stopping: true }
  /** Nothing of the command is left that must be guarded. */
  | { done: true };

/** What the guardian says. `deadline`: that of the witness. */
export type FromGuardian = { deadline: number } | { lost: string } | { failed: string };

export function* linesOf(buffered: { text: string }, chunk: string): Generator<unknown> {
  const lines = (buffered.text + chunk).split("\n");
  buffered.text = lines.pop()!;
  for (const line of lines) yield JSON.parse(line);
}

/** A second process that keeps the witness of a lock, and stops the command when the wrapper cannot. */
export class Guardian {
  readonly #process: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #ready = Promise.withResolvers<void>();
  readonly #lost = new AbortController();
  #deadline = Number.POSITIVE_INFINITY;
  #done = false;

  constructor(private readonly order: Order) {
    // A session of its own: no terminal's Ctrl-C reaches it, and it stands in nobody's job.
    this.#process = Bun.spawn([...ourselves(), GUARDIAN], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
      detached: true,
      argv0: process.argv0, // for ps(1)
    });
    this.#process.exited.then(() => this.#fail("the process that guards it has ended"));
    this.#read().catch(() => {});
    this.#ready.promise.catch(() => {});
    this.tell({ order });
  }

  /** Fires when the witness is no longer proven to be ours, or the guardian is gone. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Is the witness proven to be ours, by the clock? A guardian that was stopped does not say so. */
  look(): void {
    if (clock() >= this.#deadline) this.#fail("the process that guards it does not answer");
  }

  /**
   * Waits until the witness is ours: until the last holder's command is gone.
   * @throws {StoreError} when the guardian cannot do its work
   */
  ready(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = () => reject(signal.reason);
      if (signal.aborted) abort();
      signal.addEventListener("abort", abort, { once: true });
      this.#ready.promise.then(resolve, reject);
    });
  }

  tell(message: ToGuardian): void {
    const gone = () => {}; // a guardian that has ended is told of by its end
    try {
      this.#process.stdin.write(`${JSON.stringify(message)}\n`);
      Promise.resolve(this.#process.stdin.flush()).catch(gone);
    } catch {
      gone();
    }
  }

  /** The command is gone: the witness is given back, and the guardian ends. */
  async done(limit: number): Promise<void> {
    this.#done = true;
    this.tell({ done: true });
    await Promise.resolve(this.#process.stdin.end()).catch(() => {});
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), limit);
    await this.#process.exited;
    clearTimeout(timer);
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    const buffered = { text: "" };
    for await (const chunk of this.#process.stdout) {
      for (const said of linesOf(buffered, decoder.decode(chunk, { stream: true }))) {
        const message = said as FromGuardian;
        if ("deadline" in message) {
          this.#deadline = message.deadline;
          this.#ready.resolve();
        } else if ("lost" in message) this.#fail(message.lost);
        else this.#ready.reject(new StoreError(message.failed));
      }
    }
  }

  #fail(why: string): void {
    if (this.#done) return;
    this.#ready.reject(new StoreError(why));
    this.#lost.abort(new LockLost(`lost the lock '${printable(this.order.name)}': ${why}`));
  }
}
