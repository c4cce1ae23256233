/** Both holds of a run with a lease: how they are taken, given back, and left to the guardian. See `with-lease.ts`. */
import { release } from "../../acquire.ts";
import { CannotAcquireLock, LockTimeout } from "../../errors.ts";
import { secondHoldName } from "../../name.ts";
import { clock } from "../../os/clock.ts";
import type { TimedLease } from "../../store/lease.ts";
import type { Store } from "../../store/store.ts";
import { untilInWords } from "../output/describe-holder.ts";
import type { EventLog } from "../output/event-log.ts";
import { GuardianClient } from "./guardian-client.ts";
import { untilAfter } from "./keeper.ts";
import type { Mark } from "./process-tree.ts";
import type { RunPlan } from "./run-plan.ts";
import { mayWait } from "./wait-for-lock.ts";

/** The second hold is looked at when it is not ours after this time. */
const KEEPER_MS = 250;

/** The main lock and the second hold. */
export class Holds {
  constructor(
    readonly main: TimedLease,
    readonly guardian: GuardianClient,
    /** The environment variables that identify the processes of the command. */
    readonly mark: Mark,
  ) {}

  /**
   * Leaves the lock to the guardian for so long.
   * @returns until when, in words; undefined where there is nothing left to wait for, and both holds are still ours
   */
  async keep(milliseconds: number): Promise<string | undefined> {
    if (milliseconds <= 0 || this.main.isLost || this.guardian.lost.aborted) return undefined;
    const until = untilAfter(milliseconds);
    await this.guardian.keep(clock() + milliseconds, until, this.main.ttl / 3);
    await release(this.main);
    return untilInWords(until);
  }

  async release(): Promise<void> {
    await this.guardian.done(this.main.ttl);
    await release(this.main);
  }
}

/**
 * Starts the guardian, and waits until it has the second hold: until the last holder's command has ended.
 * @throws {CannotAcquireLock} when that takes longer than the plan waits; then the main lock is released
 */
export async function secondHold(
  store: Store,
  main: TimedLease,
  plan: RunPlan,
  url: string,
  log: EventLog,
): Promise<Holds> {
  const { name, mode, label } = plan.request;
  const { timeout, wait } = plan;
  const mark = {
    EXCLUSIVE_NAME: name,
    EXCLUSIVE_LOCKFILE: main.location,
    EXCLUSIVE_TOKEN: String(main.token),
  };
  // With slots, the lock that was acquired is that of one slot.
  const order = { url, ttl: main.ttl, name: main.name, mode, label, mark, wrapper: process.pid };
  const holds = new Holds(main, new GuardianClient(order), mark);
  holds.guardian.tell({ deadline: main.deadline });
  main.onextended = (deadline) => holds.guardian.tell({ deadline });
  // A run that does not wait for a held lock still waits, up to one lease, for the last holder's command to end.
  const limit = timeout ? Math.max(0, timeout - log.elapsed * 1000) : wait ? undefined : main.ttl;
  const late = limit === undefined ? undefined : AbortSignal.timeout(limit);
  const kept = new AbortController();
  const look = mayWait(plan) ? undefined : setTimeout(lookForKeeper, KEEPER_MS, store, main, kept);
  try {
    const ends = [main.lost, kept.signal, ...(late === undefined ? [] : [late])];
    await holds.guardian.ready(AbortSignal.any(ends));
    return holds;
  } catch (error) {
    await holds.release();
    if (late === undefined || error !== late.reason) throw error;
    const refusal = { lock: name, lockfile: main.location };
    throw timeout ? new LockTimeout(refusal, timeout / 1000) : new CannotAcquireLock(refusal);
  } finally {
    clearTimeout(look);
  }
}

/** Fires when the second hold is one that is kept for a time (`--hold-for`): no command is about to end. */
async function lookForKeeper(store: Store, main: TimedLease, kept: AbortController): Promise<void> {
  const { name, location: lockfile } = main;
  const { holder } = await store.status(secondHoldName(name)).catch(() => ({ holder: undefined }));
  if (holder?.until !== undefined) kept.abort(new CannotAcquireLock({ lock: name, lockfile, holder }));
}
