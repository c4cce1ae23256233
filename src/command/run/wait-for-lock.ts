/** Waiting for a lock that is held, by the options of `exclusive run`. */

import { acquire, holderOf, releaseAll } from "../../acquire.ts";
import { isIgnored } from "../../os/signal-sets.ts";
import { dieBySignal, SIG } from "../../os/signals.ts";
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
  using _head = headIsReleased(plan);
  using overdue = new OverdueWatch(store, plan);
  const coalesce = policy === "coalesce";
  return await acquire(store, request, { wait, timeout: left, coalesce, signal: overdue.signal }, true);
}

const ENDING = { SIGHUP: SIG.HUP, SIGINT: SIG.INT, SIGTERM: SIG.TERM } as const;

/**
 * Until disposed of: a signal that ends this waiter first releases the lock of the queue head, where the plan has one, so
 * that its file does not stay. A signal that was ignored at our start stays ignored.
 */
function headIsReleased({ policy, request }: RunPlan): Disposable {
  if (policy !== "coalesce" && request.slots === undefined) return { [Symbol.dispose]() {} };
  const handlers = (Object.keys(ENDING) as (keyof typeof ENDING)[])
    .filter((signal) => !isIgnored(signal))
    .map((signal) => {
      const die = () => {
        releaseAll();
        dieBySignal(ENDING[signal]);
      };
      process.on(signal, die);
      return () => process.off(signal, die);
    });
  return {
    [Symbol.dispose]() {
      for (const remove of handlers) remove();
    },
  };
}
