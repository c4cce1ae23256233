/** Both holds of a run with a lease: how they are taken, given back, and left to the guardian. See `with-lease.ts`. */
import { release } from "../../acquire.ts";
import { limitInWords } from "../../duration.ts";
import { CannotAcquireLock, type Holder, LockTimeout } from "../../errors.ts";
import { untilAfter } from "../../holder.ts";
import { secondHoldName } from "../../name.ts";
import { clock } from "../../os/clock.ts";
import type { TimedLease } from "../../store/lease.ts";
import type { Store } from "../../store/store.ts";
import { untilInWords } from "../output/describe-holder.ts";
import type { EventLog } from "../output/event-log.ts";
import { GuardianClient } from "./guardian-client.ts";
import type { Mark } from "./process-tree.ts";
import type { RunPlan } from "./run-plan.ts";

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
  let guardian: GuardianClient;
  try {
    guardian = new GuardianClient(order);
  } catch (error) {
    await release(main); // no descriptors or no processes are left
    throw error;
  }
  const holds = new Holds(main, guardian, mark);
  holds.guardian.tell({ deadline: main.deadline });
  main.onextended = (deadline) => holds.guardian.tell({ deadline });
  const enough = new AbortController();
  const refuse = (holder?: Holder) => {
    const refusal = { lock: name, lockfile: main.location, holder };
    enough.abort(timeout ? new LockTimeout(refusal, limitInWords(timeout)) : new CannotAcquireLock(refusal));
  };
  let late = timeout ? setTimeout(() => refuse(), Math.max(0, timeout - log.elapsed * 1000)) : undefined;
  // A run that does not wait for a held lock still waits, up to one lease, for the last holder's command to end.
  if (!timeout && !wait)
    holds.guardian.held.then(async () => {
      late = setTimeout(() => refuse(), main.ttl);
      const keeper = await keeperOf(store, main);
      if (keeper !== undefined) refuse(keeper);
    });
  try {
    await holds.guardian.ready(AbortSignal.any([main.lost, enough.signal]));
    return holds;
  } catch (error) {
    await holds.release();
    throw error;
  } finally {
    clearTimeout(late);
  }
}

/** What keeps the second hold for a time (`--hold-for`), if that is so: no command is about to end. */
async function keeperOf(store: Store, { name }: TimedLease): Promise<Holder | undefined> {
  const { holder } = await store.status(secondHoldName(name)).catch(() => ({ holder: undefined }));
  return holder?.until === undefined ? undefined : holder;
}
