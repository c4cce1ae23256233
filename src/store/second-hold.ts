/**
 * Every remote lock is held twice, through two independent sessions or leases: the main hold and the second hold.
 *
 * A server can take a lock away from a healthy holder: an administrator ends its session, revokes its lease or deletes
 * its key. With one hold, the next waiter would start before the old holder has noticed. With two, losing either hold
 * means: stop the work. Only when the work has stopped is the other hold released, so no process can start in between.
 *
 * `exclusive run` keeps the second hold in a second process (`command/run/guardian.ts`), which outlives the wrapper.
 */
import { isSeatName, isSecondHoldName, lockOfQueueHead, secondHoldName } from "../name.ts";
import type { Lease, LockStatus, Place, Request, Store } from "./store.ts";

/** The request for the second hold of a lock. */
export const secondHoldOf = (request: Request): Request => ({
  ...request,
  name: secondHoldName(request.name),
});

/** A queue head has no second hold, because no work runs under it. */
const isQueueHead = (name: string): boolean => lockOfQueueHead(name) !== undefined;

/** Both holds as one lease. It is lost when either is. */
export class DoubleHold<L extends Lease = Lease> implements Lease {
  readonly #lost: AbortSignal | undefined;

  constructor(
    readonly main: L,
    readonly second: L,
  ) {
    const signals = this.#signals();
    this.#lost = signals.length === 0 ? undefined : AbortSignal.any(signals);
  }
  get lost(): AbortSignal | undefined {
    this.#signals(); // each of them looks at the clock when it is read
    return this.#lost;
  }
  get location(): string {
    return this.main.location;
  }
  get token(): bigint | undefined {
    return this.main.token;
  }
  recordCommand(pid: number): void {
    this.main.recordCommand?.(pid);
  }
  #signals(): AbortSignal[] {
    return [this.main.lost, this.second.lost].filter((signal) => signal !== undefined);
  }
  /** Releases the second hold first, so that the next holder of the main one finds it free. */
  async release(): Promise<void> {
    await this.second.release();
    await this.main.release();
  }
}

/** A store that takes both holds of each lock, in one process. */
export class DoubleHoldStore<L extends Lease> implements Store<L | DoubleHold<L>> {
  /** @param engine a store that takes one */
  constructor(private readonly engine: Store<L>) {}

  async tryAcquire(request: Request, signal?: AbortSignal): Promise<L | DoubleHold<L> | undefined> {
    const main = await this.engine.tryAcquire(request, signal);
    if (main === undefined || isQueueHead(request.name)) return main;
    const second = await orRelease(main, this.engine.tryAcquire(secondHoldOf(request), signal));
    if (second !== undefined) return new DoubleHold(main, second);
    await main.release();
    return undefined;
  }

  async waitAcquire(request: Request, signal?: AbortSignal): Promise<L | DoubleHold<L>> {
    const main = await this.engine.waitAcquire(request, signal);
    if (isQueueHead(request.name)) return main;
    const second = await orRelease(main, this.engine.waitAcquire(secondHoldOf(request), signal));
    return new DoubleHold(main, second);
  }

  /** A place has no second hold, as no work runs under it. */
  takePlace(name: string, started: number, signal?: AbortSignal): Promise<Place> {
    return this.engine.takePlace(name, started, signal);
  }

  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    await this.engine.waitFree(name, signal);
    await this.engine.waitFree(secondHoldName(name), signal);
  }

  /** A lock of which only the second hold is taken is held: the last command is still being stopped. */
  async status(name: string): Promise<LockStatus> {
    const main = await this.engine.status(name);
    if (main.state !== "free") return main;
    const second = await this.engine.status(secondHoldName(name));
    return second.state === "free" ? main : { ...second, name, lockfile: main.lockfile };
  }

  async list(): Promise<LockStatus[]> {
    const all = await this.engine.list();
    return all.filter(({ name }) => !isQueueHead(name) && !isSecondHoldName(name) && !isSeatName(name));
  }

  async facts(): Promise<Record<string, string>> {
    return (await this.engine.facts?.()) ?? {};
  }

  location(name: string): string {
    return this.engine.location(name);
  }

  close(): Promise<void> {
    return this.engine.close();
  }
}

/** Returns the result. If it is an error, releases the main hold and throws it. */
async function orRelease<T>(main: Lease, result: Promise<T>): Promise<T> {
  try {
    return await result;
  } catch (error) {
    await main.release();
    throw error;
  }
}
