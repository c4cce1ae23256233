/** `--overdue`: a holder that has run too long is no reason to be silent. */
import { holderOf, locationOf } from "../../acquire.ts";
import { CannotAcquireLock } from "../../errors.ts";
import { type Holder, heldFor } from "../../holder.ts";
import type { Store } from "../../store/store.ts";
import type { RunPlan } from "./run-plan.ts";

/** Has the holder had the lock for longer than this? */
export function isOverdue(holder: Holder | undefined, overdue: number | undefined): overdue is number {
  const held = holder && overdue !== undefined ? heldFor(holder) : undefined;
  return held !== undefined && held >= overdue!;
}

/** Pause until a holder without a record is looked at again, in milliseconds. */
const NO_RECORD_MS = 1000;
/** Timers do not count the time that the machine sleeps, and take 31 bits. */
const LOOK_MS = 3_600_000;

/** Until disposed of: fires with a `CannotAcquireLock` when the lock is held, and its holder is overdue. */
export class OverdueWatch implements Disposable {
  readonly #controller = new AbortController();
  #timer: Timer | undefined;

  constructor(
    private readonly store: Store,
    private readonly plan: RunPlan,
  ) {
    if (plan.overdue !== undefined) this.#lookIn(0, plan.overdue);
  }

  /** Undefined where the plan has no such limit. */
  get signal(): AbortSignal | undefined {
    return this.plan.overdue === undefined ? undefined : this.#controller.signal;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #lookIn(milliseconds: number, overdue: number): void {
    this.#timer = setTimeout(() => this.#look(overdue), Math.min(milliseconds, LOOK_MS));
  }

  async #look(overdue: number): Promise<void> {
    const { store } = this;
    const { request } = this.plan;
    const timer = this.#timer;
    const holder = await holderOf(store, request).catch(() => undefined); // the wait itself reports a store's failure
    if (this.#timer !== timer) return; // disposed of
    if (holder && isOverdue(holder, overdue)) {
      const refusal = { lock: request.name, lockfile: locationOf(store, request), holder };
      this.#controller.abort(new CannotAcquireLock(refusal));
      return;
    }
    const held = holder ? heldFor(holder) : undefined;
    this.#lookIn(held === undefined ? NO_RECORD_MS : overdue - held + 1, overdue);
  }
}
