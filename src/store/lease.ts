/**
 * What every lock with a lease has in common: it is renewed in time, it has a deadline, and it can be lost.
 *
 * The deadline counts from the moment at which the last successful renewal was *sent*: the store may have counted
 * from there, and an answer that came late must not make the lease longer here than it is there.
 */
import { LockLost, printable } from "../errors.ts";
import { clock } from "../os/clock.ts";
import type { Lease } from "./store.ts";

/** How long a lease is when nobody says, in milliseconds. */
export const DEFAULT_TTL = 15_000;

/** By so much, at most, do the clocks of two hosts differ over one lease; and the time that a signal needs. */
const DRIFT = 0.01;
const LATENCY_MS = 5;

/** Parts of the lease: a renewal is due after the first third, and without one it is lost at the end of the second. */
const PARTS = 3;

/** What an engine says of a lease. */
export interface LeaseOptions {
  /** The lock's name. */
  name: string;
  /** The store's URL without its secrets. */
  place: string;
  token?: bigint | undefined;
  /** How long the engine keeps the lock without a renewal, in milliseconds. */
  ttl: number;
  /** When the request that took the lock was sent, on `clock()`. */
  sent: number;
  /**
   * Asks the engine for another `ttl` from now.
   * @param signal fires when the answer will not be waited for any longer
   * @returns false when the engine says that the lock is no longer ours. A rejection says nothing: it is tried again.
   */
  renew(signal: AbortSignal): Promise<boolean>;
  /** Gives the lock back in the engine. That it fails is no error: the lease ends by itself. */
  giveBack(signal: AbortSignal): Promise<void>;
  /** Keeps the wrapped command's pid in the record. */
  recordCommand?(pid: number): void;
}

/** A lock that a store keeps for `ttl`, again and again. */
export class TimedLease implements Lease {
  readonly place: string;
  readonly token: bigint | undefined;
  readonly #options: LeaseOptions;
  readonly #lost = new AbortController();
  #deadline = 0;
  #renewal: Timer | undefined;
  readonly #watch: Timer;
  #ended = false;
  #failure: unknown;
  onextended: ((deadline: number) => void) | undefined;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.place = options.place;
    this.token = options.token;
    this.#extend(options.sent);
    // The event loop's timers stand still while the machine sleeps: on waking up the watch is what sees the deadline
    // first, so it looks often. It asks nobody but the clock.
    this.#watch = setInterval(() => this.#look(), Math.min(Math.max(options.ttl / 50, 10), 250));
    this.#plan(options.sent + options.ttl / PARTS);
  }

  /** Fires while there is still a third of the lease to stop what the lock protects. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Until when nobody else can own the lock, on `clock()`. */
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

  /** Looks at the clock now: a process that was stopped may get to know of something else before it knows of that. */
  get isLost(): boolean {
    return this.#lost.signal.aborted || !this.#look();
  }

  recordCommand(pid: number): void {
    this.#options.recordCommand?.(pid);
  }

  /** The engine knows that the lock is gone: the session has ended, the key is another's. */
  lose(why: string): void {
    if (this.#ended || this.#lost.signal.aborted) return;
    this.#stop();
    const { name, place } = this.#options;
    this.#lost.abort(new LockLost(`lost the lock '${printable(name)}' (${place}): ${why}`));
  }

  async release(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#stop();
    const limit = AbortSignal.timeout(this.#options.ttl / PARTS);
    await within(limit, this.#options.giveBack(limit)).catch(() => {});
  }

  #stop(): void {
    clearTimeout(this.#renewal);
    clearInterval(this.#watch);
  }

  #extend(sent: number): void {
    this.#deadline = sent + this.#options.ttl * (1 - DRIFT) - LATENCY_MS;
    this.onextended?.(this.#deadline);
  }

  #plan(when: number): void {
    this.#renewal = setTimeout(() => this.#renew(), Math.max(0, when - clock()));
  }

  /** @returns true while the lock is proven to be ours for long enough */
  #look(): boolean {
    if (clock() < this.#deadline - this.#options.ttl / PARTS) return true;
    const reason = this.#failure instanceof Error ? `: ${this.#failure.message.replace(/\.$/, "")}` : "";
    this.lose(`it could not be renewed in time${reason}`);
    return false;
  }

  async #renew(): Promise<void> {
    if (!this.#look()) return;
    const { ttl } = this.#options;
    const sent = clock();
    const limit = AbortSignal.timeout(ttl / PARTS / 2);
    try {
      const ours = await within(limit, this.#options.renew(limit));
      if (this.#ended || this.#lost.signal.aborted) return;
      if (!ours) return this.lose("the store does not have it any more");
      this.#failure = undefined;
      this.#extend(sent);
      this.#plan(sent + ttl / PARTS);
    } catch (error) {
      if (this.#ended || this.#lost.signal.aborted) return;
      this.#failure = error;
      this.#plan(clock() + ttl / 20);
    }
  }
}

/** The promise, but not longer than until the signal fires. */
export function within<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const giveUp = () => reject(signal.reason);
    if (signal.aborted) giveUp();
    signal.addEventListener("abort", giveUp, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", giveUp));
  });
}

/**
 * Waits.
 * @param signal gives the wait up: at once if it has fired already
 */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  const sleep = Promise.withResolvers<void>();
  const timer = setTimeout(sleep.resolve, milliseconds);
  const done = signal === undefined ? sleep.promise : within(signal, sleep.promise);
  return done.finally(() => clearTimeout(timer));
}
