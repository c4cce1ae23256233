/** Waiting for a lock that is held, by the options of `exclusive run`. */

import { acquire, holderOf, releaseAll } from "../../acquire.ts";
import { beforeDeath } from "../../os/before-death.ts";
import type { Lease, Store } from "../../store/store.ts";
import type { EventLog } from "../output/event-log.ts";
import { OverdueWatch } from "./overdue.ts";
import type { RunPlan } from "./run-plan.ts";

/** Whether the plan lets a held lock be waited for. */
export const mayWait = ({ wait, timeout }: RunPlan): boolean => wait || timeout !== undefined;

/**
 * Acquires a lock that is held: in its queue, or by stopping its holder.
 * @throws {CannotAcquireLock} when that fails, as far as the plan goes
 */
export async function waitForLock<L extends Lease>(
  store: Store<L>,
  plan: RunPlan,
  log: EventLog,
): Promise<L> {
  const { request, policy, wait, timeout } = plan;
  const { showWaiting } = await import("../output/wait-line.ts");
  const holder = () => holderOf(store, request);
  using _line = showWaiting({ name: request.name, holder }, timeout, log);
  if (policy === "replace") {
    const { replaceHolder } = await import("./stop-holders.ts");
    return await replaceHolder(store, request, timeout);
  }
  // --timeout counts from the start of the program: the time used since then is subtracted.
  const left = timeout && Math.max(1, timeout - log.elapsed * 1000);
  using _head = beforeDeath(releaseAll); // the file of the queue head must not stay
  using overdue = new OverdueWatch(store, plan);
  const how = { coalesce: policy === "coalesce", latest: policy === "latest" };
  return await acquire(store, request, { wait, timeout: left, ...how, signal: overdue.signal }, true);
}
