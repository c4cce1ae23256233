/**
 * The guardian: the second process of a run with a lease. `with-lease.ts` says why there is one.
 *
 * It acquires the second hold before the command starts, and releases it when no process of the command is left. It
 * stops the command where the wrapper does not. It ends with the wrapper, or when it has done the wrapper's work.
 */

import { printable } from "../../errors.ts";
import { clock } from "../../os/clock.ts";
import { toNowhere, write } from "../../os/files.ts";
import { processesWith } from "../../os/marker.ts";
import { type TimedLease, within } from "../../store/lease.ts";
import { openEngine } from "../../store/open-store.ts";
import { isTemporary } from "../../store/outage.ts";
import { secondHoldOf } from "../../store/second-hold.ts";
import type { Request, Store } from "../../store/store.ts";
import { EXIT } from "../cli/exit-status.ts";
import { printError } from "../output/print.ts";
import { cannotStop, endTree, type TreeEnd } from "./end-tree.ts";
import {
  encodeMessage,
  type FromGuardian,
  type Order,
  readMessages,
  type ToGuardian,
} from "./guardian-protocol.ts";
import { keepHold } from "./keep-hold.ts";
import { whenOver } from "./max-runtime.ts";
import { ProcessTree } from "./process-tree.ts";

/** How long to search for the command of a wrapper that was killed while it started it. */
const SEARCH_MS = 1000;
/** How often the processes of the command are looked at: what was seen below the wrapper is known after its end too. */
const LOOK_MS = 1000;
/** Grace period for a hold that is being acquired when the guardian leaves, so that it can be released. */
const LEAVE_MS = 500;

/** Signals that end other processes, as a service manager's SIGTERM to all of them, must not end this one first. */
const SURVIVED = [
  "SIGHUP",
  "SIGINT",
  "SIGQUIT",
  "SIGTERM",
  "SIGPIPE",
  "SIGUSR1",
  "SIGUSR2",
  "SIGALRM",
] as const;

/** But they end it when it only keeps the lock. */
const ENDING = ["SIGHUP", "SIGINT", "SIGTERM"] as const;

/** The sub-command `GUARDIAN`. */
export async function runGuardian(): Promise<number> {
  // They are blocked, but the event loop lets them through while it waits.
  for (const signal of SURVIVED) process.on(signal, () => {});
  let guardian: Guardian | undefined;
  for await (const message of readMessages<ToGuardian>(Bun.stdin.stream())) {
    if ("order" in message) guardian = new Guardian(message.order);
    else guardian?.receive(message);
  }
  await guardian?.wrapperGone();
  return EXIT.OK;
}

/** Tells the wrapper. It is not an error if the wrapper has ended. */
function tell(message: FromGuardian): void {
  write(1, encodeMessage(message));
}

class Guardian {
  readonly #hold: Promise<TimedLease | undefined>;
  /** The second hold, acquired again after it was lost. */
  #again: Promise<TimedLease | undefined> | undefined;
  readonly #leaving = new AbortController();
  /** Until when the main lock is proven to be held. */
  #deadline = Number.POSITIVE_INFINITY;
  /** The processes of the command; undefined before it may exist. */
  #tree: ProcessTree | undefined;
  /** Has the wrapper told us the command's pid? */
  #started = false;
  #wrapperStops = false;
  #done = false;
  #keep: { keep: number; until: string } | undefined;
  #stopped: Promise<void> | undefined;

  constructor(private readonly order: Order) {
    this.#hold = this.#acquire();
    setInterval(() => this.#checkDeadline(), Math.min(Math.max(order.ttl / 50, 10), 250));
    setInterval(() => this.#tree?.living(), LOOK_MS);
  }

  async #acquire(): Promise<TimedLease | undefined> {
    const { url, ttl, name, mode, label } = this.order;
    try {
      const store = await openEngine(url, { ttl, notice: () => {} });
      const request = secondHoldOf({ name, mode, label });
      const { signal } = this.#leaving;
      const taken = (await this.#tryAtOnce(store, request)) ?? (await store.waitAcquire(request, signal));
      taken.onextended = (deadline) => tell({ deadline });
      taken.lost.addEventListener("abort", () => {
        tell({ lost: String((taken.lost.reason as Error).cause) });
        // The cause may have taken the main lock too. If the second hold is ours again before a waiter asks for it, no
        // other process gets in before the command has ended.
        this.#again = store.tryAcquire(request, this.#leaving.signal).catch(() => undefined);
      });
      tell({ deadline: taken.deadline });
      return taken;
    } catch (error) {
      if (!this.#leaving.signal.aborted) tell({ failed: (error as Error).message });
      return undefined;
    }
  }

  /** @returns undefined when it must be waited for: it is held, which the wrapper is told, or the server is away */
  async #tryAtOnce(store: Store<TimedLease>, request: Request): Promise<TimedLease | undefined> {
    try {
      const hold = await store.tryAcquire(request, this.#leaving.signal);
      if (hold === undefined) tell({ held: true });
      return hold;
    } catch (error) {
      if (isTemporary(error)) return undefined;
      throw error;
    }
  }

  receive(message: Exclude<ToGuardian, { order: Order }>): void {
    if ("deadline" in message) this.#deadline = message.deadline;
    else if ("starting" in message) this.#tree = this.#treeOf(message.marker);
    else if ("command" in message) {
      this.#started = true;
      this.#tree?.setCommand(message.command);
    } else if ("stopping" in message) this.#wrapperStops = true;
    else if ("keep" in message) void this.#keepOn(message);
    else this.#done = true;
  }

  /** From now on this process is what keeps the lock. Its stderr is the caller's, who waits for the end of all output. */
  async #keepOn(keep: { keep: number; until: string }): Promise<void> {
    this.#done = true;
    this.#keep = keep;
    (await this.#hold)?.recordCommand(process.pid, keep.until);
    toNowhere(2);
    tell({ kept: true });
  }

  /** Keeps the lock after the wrapper's end: both holds, unless a waiter has the main one and waits for the second. */
  async #keepLock({ keep, until }: { keep: number; until: string }): Promise<void> {
    const over = new AbortController();
    for (const signal of ENDING) process.on(signal, () => over.abort());
    using _time = whenOver(keep - clock(), () => over.abort());
    const { url, ttl, name, mode, label } = this.order;
    const request = { name, mode, label, until };
    const store = await openEngine(url, { ttl, notice: () => {} });
    await Promise.allSettled([
      keepHold(store, secondHoldOf(request), over.signal, await this.#hold),
      keepHold(store, request, over.signal),
    ]);
  }

  #treeOf(marker: string | undefined): ProcessTree {
    const { mark, wrapper } = this.order;
    return new ProcessTree({
      wrapper,
      mark,
      heirs: marker === undefined ? () => [] : () => processesWith(marker),
    });
  }

  /**
   * Stops the command for a wrapper that neither extends its lease nor stops the command: it is itself stopped. When the
   * lease was lost, a third before its end, it had its chance.
   */
  #checkDeadline(): void {
    if (!this.#started || this.#done || this.#stopped) return;
    const left = this.#deadline - clock();
    const { ttl } = this.order;
    if (left > ttl / 12 && (left > ttl / 4 || this.#wrapperStops)) return;
    this.#stopped = this.#stopForWrapper();
  }

  /**
   * A wrapper that is stopped keeps its end of the pipe open, so the guardian does not wait for its word. The wrapper is
   * continued, so that it ends: PostgreSQL keeps a lock while a process has the other end of the connection.
   */
  async #stopForWrapper(): Promise<void> {
    await this.#stopCommand();
    await this.#leave();
    try {
      process.kill(this.order.wrapper, "SIGCONT");
    } catch {} // it has ended
    process.exit(EXIT.OK);
  }

  /** The pipe is closed: the wrapper is done, or it is gone. */
  async wrapperGone(): Promise<void> {
    if (this.#keep !== undefined) await this.#keepLock(this.#keep);
    if (!this.#done) {
      const { name, wrapper } = this.order;
      const { most, refused } = await this.#stopCommand();
      if (most > refused.size)
        printError(`the wrapper of '${printable(name)}' (pid ${wrapper}) is gone; command stopped`);
    }
    await this.#stopped;
    await this.#leave();
  }

  /** SIGKILL comes shortly before the lease ends. Resolves when no process of the command is left. */
  #stopCommand(): Promise<TreeEnd> {
    const { name, ttl } = this.order;
    if (this.#tree === undefined) return Promise.resolve({ most: 0, refused: new Set<number>() });
    return endTree(this.#tree, {
      killAt: Math.min(this.#deadline, clock() + ttl / 3) - ttl / 12,
      searchUntil: this.#started ? 0 : clock() + SEARCH_MS,
      onrefused: (pids) => printError(cannotStop(name, pids)),
    });
  }

  async #leave(): Promise<void> {
    this.#leaving.abort();
    const hold = await this.#hold;
    await hold?.release();
    // No wait for a store that does not answer now: the session, or the lease, ends by itself.
    const again = this.#again && within(AbortSignal.timeout(LEAVE_MS), this.#again);
    await (await again?.catch(() => undefined))?.release();
  }
}
