/** Waiting with a limit. Nothing here waits on a promise that may never settle without keeping the program running. */

import { limitInWords } from "../duration.ts";
import { TimeIsUp } from "./store.ts";

/** The promise, rejected with the signal's reason if that fires first. */
export function within<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const giveUp = () => reject(signal.reason);
    if (signal.aborted) giveUp();
    signal.addEventListener("abort", giveUp, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", giveUp));
  });
}

/** Resolves when one of them has fired. */
export const fired = (...signals: AbortSignal[]): Promise<void> =>
  new Promise((resolve) => {
    const any = AbortSignal.any(signals);
    if (any.aborted) resolve();
    else any.addEventListener("abort", () => resolve(), { once: true });
  });

/**
 * Asks for an answer within a time limit, and within a signal that is given. A limit keeps the program running until
 * then, which neither a promise nor `AbortSignal.timeout` does.
 * @param ask receives a signal that fires when it is too late
 * @throws {DOMException} named `TimeoutError` when the limit has passed
 */
export async function limited<T>(
  milliseconds: number,
  ask: (signal: AbortSignal) => Promise<T>,
  given?: AbortSignal,
): Promise<T> {
  const limit = new AbortController();
  const timer = setTimeout(
    () => limit.abort(new DOMException(`no answer in ${limitInWords(milliseconds)}`, "TimeoutError")),
    milliseconds,
  );
  const signal = given === undefined ? limit.signal : AbortSignal.any([given, limit.signal]);
  try {
    return await within(signal, ask(signal));
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Sleeps, in milliseconds.
 * @param signal ends the sleep: the promise is rejected with its reason, at once if it has already fired
 */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  const sleep = Promise.withResolvers<void>();
  const timer = setTimeout(sleep.resolve, milliseconds);
  const done = signal === undefined ? sleep.promise : within(signal, sleep.promise);
  return done.finally(() => clearTimeout(timer));
}

/** Sleeps like `pause`, but no longer than until the promise is resolved, where there is one. */
export async function pauseUnless(
  done: Promise<void> | undefined,
  milliseconds: number,
  signal: AbortSignal,
): Promise<void> {
  const wake = new AbortController();
  const sleep = pause(milliseconds, AbortSignal.any([signal, wake.signal]));
  try {
    await Promise.race(done === undefined ? [sleep] : [sleep, done]);
  } finally {
    wake.abort();
    sleep.catch(() => {});
  }
}

/** Fires after this time. For 0 it has already fired, so that no attempt waits. It keeps the program running. */
export class Deadline implements Disposable {
  readonly #controller = new AbortController();
  readonly #timer: Timer | undefined;
  constructor(milliseconds: number) {
    const fire = () => this.#controller.abort(new TimeIsUp("the time is up"));
    if (milliseconds === 0) fire();
    // setTimeout(3) takes 31 bits; a longer wait has no limit that matters.
    else if (milliseconds < 2 ** 31) this.#timer = setTimeout(fire, milliseconds);
  }
  get signal(): AbortSignal {
    return this.#controller.signal;
  }
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}
