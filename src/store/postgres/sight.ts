/** Tells a session that an administrator has ended from one that was the holder's. */
import { clock } from "../../os/clock.ts";

/** What a waiter sees of the sessions that an administrator ends: one of them may have been the holder's. */
export class Sight {
  /** The holders at the last two looks. The count may be a moment later than the end of the session. */
  #last = "";
  #before = "";

  /**
   * @param killed `SESSIONS_KILLED` at the start
   * @param interrupted when sessions were last ended that may have been a holder's, on `clock()`
   */
  constructor(
    private killed: unknown,
    public interrupted = Number.NEGATIVE_INFINITY,
  ) {}

  /** Counts the ended sessions at a look at a held lock. When the holders are the same ones, the sessions were others'. */
  see(killed: unknown, holders: string): void {
    const same = holders !== "{}" && holders === this.#last && holders === this.#before;
    if (killed !== this.killed && !same) this.interrupted = clock();
    [this.killed, this.#before, this.#last] = [killed, this.#last, holders];
  }

  /** The lock was taken: a session that was ended since the last look may have been the holder's. */
  taken(killed: unknown): void {
    if (killed !== this.killed) this.interrupted = clock();
  }
}

/** An expression: the pids of the sessions that hold the lock, as text. */
export const holdersOf = (key: bigint): string =>
  `ARRAY(SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
    AND (classid::bigint << 32) | objid::bigint = ${key} ORDER BY pid)::text`;
