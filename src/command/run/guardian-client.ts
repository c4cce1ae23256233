/** The wrapper's side of its guardian: starts it, and exchanges messages with it. See `with-lease.ts`. */
import { LockLost, printable, StoreError } from "../../errors.ts";
import { leaveToRuntime } from "../../os/child-process.ts";
import { clock } from "../../os/clock.ts";
import { ourselves } from "../../os/self.ts";
import { within } from "../../store/lease.ts";
import {
  encodeMessage,
  type FromGuardian,
  GUARDIAN,
  type Order,
  readMessages,
  type ToGuardian,
} from "./guardian-protocol.ts";

/** A guardian, as the wrapper sees it. */
export class GuardianClient {
  readonly #process: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #ready = Promise.withResolvers<void>();
  readonly #held = Promise.withResolvers<void>();
  readonly #kept = Promise.withResolvers<void>();
  readonly #lost = new AbortController();
  #deadline = Number.POSITIVE_INFINITY;
  #done = false;

  constructor(private readonly order: Order) {
    // Its own session: no terminal signals, no shell job.
    this.#process = Bun.spawn([...ourselves(), GUARDIAN], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
      detached: true,
      argv0: process.argv0, // for ps(1)
    });
    leaveToRuntime(this.#process.pid);
    this.#process.exited.then(() => this.#fail("the process that guards it has ended"));
    this.#read().catch(() => {});
    this.#ready.promise.catch(() => {});
    this.tell({ order });
  }

  get pid(): number {
    return this.#process.pid;
  }

  /** Fires when the second hold is no longer proven to be held, or the guardian has ended. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Checks the deadline of the second hold: a guardian that was stopped does not extend it. */
  checkDeadline(): void {
    if (clock() >= this.#deadline) this.#fail("the process that guards it does not answer");
  }

  /**
   * Waits until the guardian has the second hold: until the last holder's command has ended.
   * @throws {StoreError} when the guardian cannot acquire it
   */
  ready(signal: AbortSignal): Promise<void> {
    return within(signal, this.#ready.promise);
  }

  /** Resolves when another run is seen to have the second hold. */
  get held(): Promise<void> {
    return this.#held.promise;
  }

  /** Sends a message. A guardian that has ended is noticed by its end, not here. */
  tell(message: ToGuardian): void {
    try {
      this.#process.stdin.write(encodeMessage(message));
      Promise.resolve(this.#process.stdin.flush()).catch(() => {});
    } catch {}
  }

  /**
   * No process of the command is left: waits until the guardian has released the second hold and has ended.
   * @param limit milliseconds until it is killed
   */
  async done(limit: number): Promise<void> {
    this.#done = true;
    this.tell({ done: true });
    await Promise.resolve(this.#process.stdin.end()).catch(() => {});
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), limit);
    await this.#process.exited;
    clearTimeout(timer);
  }

  /**
   * No process of the command is left: the guardian keeps the second hold up to this time, and takes the main lock as soon
   * as it is free.
   * @param keep on `clock()`
   */
  async keep(keep: number, until: string, limit: number): Promise<void> {
    this.#done = true;
    this.tell({ keep, until });
    await Promise.race([this.#kept.promise, this.#process.exited, Bun.sleep(limit)]);
  }

  async #read(): Promise<void> {
    for await (const message of readMessages<FromGuardian>(this.#process.stdout)) {
      if ("deadline" in message) {
        this.#deadline = message.deadline;
        this.#ready.resolve();
      } else if ("held" in message) this.#held.resolve();
      else if ("kept" in message) this.#kept.resolve();
      else if ("lost" in message) this.#fail(message.lost);
      else this.#ready.reject(new StoreError(message.failed));
    }
  }

  #fail(why: string): void {
    if (this.#done) return;
    this.#ready.reject(new StoreError(why));
    this.#lost.abort(new LockLost(`lost the lock '${printable(this.order.name)}': ${why}`));
  }
}
