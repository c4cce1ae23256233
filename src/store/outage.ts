/** What a waiter does while something other than a holder delays it: a server that is away, or one that may have forgotten. */
import { StoreError } from "../errors.ts";
import { TimeIsUp } from "./store.ts";
import { pause } from "./time-limit.ts";

/** The pause before a waiter asks again. It doubles up to the maximum. */
const RETRY_MS = 50;
const RETRY_MAX_MS = 1000;

/** Is the server away, so that the same request may succeed later? */
export const isTemporary = (error: unknown): error is StoreError =>
  error instanceof StoreError && error.temporary;

/** For `catch`: undefined while the server is away, because a wait goes on through that. */
export const unlessAway = (signal: AbortSignal) => (error: unknown) => {
  if (signal.aborted || !isTemporary(error)) throw error;
  return undefined;
};

/**
 * The error of a wait that a signal ended while the lock was not known to be held.
 * @param why what delayed it
 */
export const delayed = (signal: AbortSignal, why: string): unknown =>
  signal.reason instanceof TimeIsUp ? new StoreError(why, { temporary: true }) : signal.reason;

/** Sleeps like `pause`. When the signal ends the sleep, the error says what the lock was waiting for. */
export async function delay(milliseconds: number, why: string, signal?: AbortSignal): Promise<void> {
  try {
    await pause(milliseconds, signal);
  } catch {
    throw delayed(signal!, why);
  }
}

/**
 * The times in which a waiter does not reach its server. It waits through each of them, however many there are and
 * however long they take; each is announced once.
 */
export class Outage {
  #pause = RETRY_MS;
  #announced = false;

  constructor(private readonly notice: (message: string) => void) {}

  /** The server has answered. */
  over(): void {
    this.#pause = RETRY_MS;
    this.#announced = false;
  }

  /**
   * Pauses before the next attempt.
   * @param error of the last one
   * @throws the error, if another attempt would fail too; the signal's reason, or the error where the time is up
   */
  async wait(error: unknown, signal?: AbortSignal): Promise<void> {
    if (!isTemporary(error)) throw signal?.aborted ? signal.reason : error;
    if (signal?.aborted) throw delayed(signal, error.message);
    if (!this.#announced) this.notice(`${error.message}; trying again`);
    this.#announced = true;
    const pause = this.#pause;
    this.#pause = Math.min(2 * pause, RETRY_MAX_MS);
    await delay(pause, error.message, signal);
  }
}
