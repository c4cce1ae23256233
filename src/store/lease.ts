/**
 * A lease: renewed in time, with a deadline, and lost when it could not be renewed.
 *
 * The deadline counts from when the last successful renewal was *sent*. The server may have counted from there, and a
 * late answer must not make the lease longer here than it is there.
 */
import { limitInWords } from "../duration.ts";
import { LockLost, printable } from "../errors.ts";
import { lockOfSecondHold } from "../name.ts";
import { clock } from "../os/clock.ts";
import type { Lease } from "./store.ts";
import { limited } from "./time-limit.ts";

export { fired, pause, within } from "./time-limit.ts";

/** The default length of a lease, in milliseconds. */
export const DEFAULT_TTL = 15_000;

/** Allowance for clock drift between hosts (1 %), and for signal delivery (5 ms). */
const DRIFT = 0.01;
const LATENCY_MS = 5;

/** Renew after the first third of the lease; lost at the end of the second; the last is for stopping the work. */
const PARTS = 3;

/** What an engine knows about one lease. */
export interface LeaseOptions {
  /** The lock's name. */
  name: string;
  /** The store's URL without its secrets. */
  location: string;
  token?: bigint | undefined;
  /** How long the engine keeps the lock without a renewal, in milliseconds. */
  ttl: number;
  /** When the request that took the lock was sent, on `clock()`. */
  sent: number;
  /**
   * Extends the lease in the engine to `ttl` from now.
   * @param signal fires when it is too late for an answer
   * @returns false when the engine no longer has the lock as ours. A rejection decides nothing: the renewal is retried.
   */
  renew(signal: AbortSignal): Promise<boolean>;
  /** Releases the lock in the engine. A failure is ignored, because the lease ends by itself. */
  release(signal: AbortSignal): Promise<void>;
  /** Adds the wrapped command's pid to the holder's record; or, where it only keeps the lock from now on, until when. */
  recordCommand?(pid: number, until?: string): void;
}

/** A lock that an engine keeps for `ttl` at a time. */
export class TimedLease implements Lease {
  readonly location: string;
  readonly token: bigint | undefined;
  readonly #options: LeaseOptions;
  readonly #lost = new AbortController();
  #deadline = 0;
  /** When the last successful renewal was sent. */
  #renewed = 0;
  #renewal: Timer | undefined;
  readonly #deadlineCheck: Timer;
  #released = false;
  /** No work runs under it: nothing has to be stopped before its end. */
  #onlyKept = false;
  /** Why the last renewal failed; undefined after a success. */
  #failure: unknown;
  /** Receives each new `deadline`. */
  onextended: ((deadline: number) => void) | undefined;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.location = options.location;
    this.token = options.token;
    this.#extend(options.sent);
    // Timers of the event loop stand still while the machine sleeps. A frequent check notices the deadline soon after
    // waking up; it only reads the clock.
    this.#deadlineCheck = setInterval(
      () => this.#checkDeadline(),
      Math.min(Math.max(options.ttl / 50, 10), 250),
    );
    this.#scheduleRenewal(options.sent + options.ttl / PARTS);
  }

  /**
   * Fires when the lock is lost. On a missed renewal a third of the lease is left to stop the work. To read it compares
   * the clock too: the timers of a blocked event loop are late.
   */
  get lost(): AbortSignal {
    if (!this.#isOver) this.#checkDeadline();
    return this.#lost.signal;
  }

  /** Until when no other process can own the lock, in milliseconds on `clock()`. */
  get deadline(): number {
    return this.#deadline;
  }

  /** The lock's name. */
  get name(): string {
    return this.#options.name;
  }

  /** The length of the lease, in milliseconds. */
  get ttl(): number {
    return this.#options.ttl;
  }

  /** Re-checks the clock: after SIGSTOP, other events may be processed before the timer of the deadline. */
  get isLost(): boolean {
    return this.lost.aborted;
  }

  recordCommand(pid: number, until?: string): void {
    this.#options.recordCommand?.(pid, until);
  }

  /**
   * No work runs under it from now on, so that silence does not end it: the engine may still have it as ours, and to release
   * it would let another process in.
   */
  onlyKeep(): void {
    this.#onlyKept = true;
  }

  /** Whether the engine has been silent up to the lease's end, so that the lock may have another owner. */
  get isSilent(): boolean {
    return clock() >= this.#deadline;
  }

  /** Marks the lock as lost: the engine knows that the session has ended, or that the key has another owner. */
  lose(why: string): void {
    if (this.#isOver) return;
    this.#stopTimers();
    const { name, location } = this.#options;
    const cause = why.startsWith(location) ? why : `${location}: ${why}`;
    this.#lost.abort(
      new LockLost(`lost the lock '${printable(lockOfSecondHold(name))}': ${cause}`, { cause }),
    );
  }

  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    this.#stopTimers();
    await limited(this.#options.ttl / PARTS, this.#options.release).catch(() => {});
  }

  get #isOver(): boolean {
    return this.#released || this.#lost.signal.aborted;
  }

  #stopTimers(): void {
    clearTimeout(this.#renewal);
    clearInterval(this.#deadlineCheck);
  }

  #extend(sent: number): void {
    this.#renewed = sent;
    this.#deadline = sent + this.#options.ttl * (1 - DRIFT) - LATENCY_MS;
    this.onextended?.(this.#deadline);
  }

  /** @param when on `clock()` */
  #scheduleRenewal(when: number): void {
    this.#renewal = setTimeout(() => this.#renew(), Math.max(0, when - clock()));
  }

  /** Loses the lock when less than a third of the lease is left. @returns false if so */
  #checkDeadline(): boolean {
    if (this.#onlyKept || clock() < this.#deadline - this.#options.ttl / PARTS) return true;
    const silence = limitInWords(clock() - this.#renewed);
    const { message = "no answer" } = (this.#failure ?? {}) as Partial<Error>;
    const why = message.replace(`${this.location}: `, "").replace(/\.$/, "");
    this.lose(`${this.location} unreachable for ${silence} (${why})`);
    return false;
  }

  async #renew(): Promise<void> {
    if (!this.#checkDeadline()) return;
    const { ttl } = this.#options;
    const sent = clock();
    try {
      const ours = await limited(ttl / PARTS / 2, this.#options.renew);
      if (this.#isOver) return;
      if (!ours) return this.lose("the store does not have it any more");
      this.#failure = undefined;
      this.#extend(sent);
      this.#scheduleRenewal(sent + ttl / PARTS);
    } catch (error) {
      if (this.#isOver) return;
      this.#failure = error;
      this.#scheduleRenewal(clock() + ttl / 20);
    }
  }
}
