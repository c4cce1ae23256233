/**
 * A lock of a remote store is two locks: the main one, and its witness.
 *
 * A store can take a lock away from a holder that is well: an administrator ends the session, revokes the lease or
 * deletes the key. Then the next one would begin at once, before the old one has noticed. So whoever has the main
 * lock must have the witness too before it begins, and gives it back only when its work has stopped. Two sessions,
 * two leases: who loses one of them stops, and the other keeps everybody out until it has.
 *
 * `exclusive run` keeps the witness in a second process (`command/guardian.ts`), which outlives the wrapper.
 */
import { isWitnessName, lockOfQueueHead, witnessName } from "../name.ts";
import type { Lease, LockStatus, Request, Store } from "./store.ts";

/** What to ask for to have the witness of a lock. */
export const witnessOf = (request: Request): Request => ({ ...request, name: witnessName(request.name) });

/** The place of the next in line protects nothing that runs, so it has no witness. */
const isLine = (name: string): boolean => lockOfQueueHead(name) !== undefined;

/** Main lock and witness as one lease. */
class Pair implements Lease {
  readonly lost: AbortSignal | undefined;

  constructor(
    private readonly main: Lease,
    private readonly witness: Lease,
  ) {
    const signals = [main.lost, witness.lost].filter((signal) => signal !== undefined);
    this.lost = signals.length === 0 ? undefined : AbortSignal.any(signals);
  }
  get place(): string {
    return this.main.place;
  }
  get token(): bigint | undefined {
    return this.main.token;
  }
  recordCommand(pid: number): void {
    this.main.recordCommand?.(pid);
  }
  /** The witness first: whoever gets the main lock then finds it free. */
  async release(): Promise<void> {
    await this.witness.release();
    await this.main.release();
  }
}

/** A store whose locks are held together with their witness. */
export class Witnessed implements Store {
  constructor(private readonly engine: Store) {}

  async tryAcquire(request: Request, signal?: AbortSignal): Promise<Lease | undefined> {
    const main = await this.engine.tryAcquire(request, signal);
    if (main === undefined || isLine(request.name)) return main;
    const witness = await orRelease(main, this.engine.tryAcquire(witnessOf(request), signal));
    if (witness !== undefined) return new Pair(main, witness);
    await main.release();
    return undefined;
  }

  async waitAcquire(request: Request, signal?: AbortSignal): Promise<Lease> {
    const main = await this.engine.waitAcquire(request, signal);
    if (isLine(request.name)) return main;
    return new Pair(main, await orRelease(main, this.engine.waitAcquire(witnessOf(request), signal)));
  }

  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    for (const part of [name, witnessName(name)]) {
      if (this.engine.waitFree) await this.engine.waitFree(part, signal);
      else await (await this.engine.waitAcquire({ name: part, mode: "exclusive" }, signal)).release();
    }
  }

  /** A lock whose main part is free, and its witness not, is held: the last command is being stopped. */
  async status(name: string): Promise<LockStatus> {
    const main = await this.engine.status(name);
    if (main.state !== "free") return main;
    const witness = await this.engine.status(witnessName(name));
    return witness.state === "free" ? main : { ...witness, name, lockfile: main.lockfile };
  }

  async list(): Promise<LockStatus[]> {
    const all = await this.engine.list();
    return all.filter(({ name }) => !isLine(name) && !isWitnessName(name));
  }

  place(name: string): string {
    return this.engine.place(name);
  }

  close(): Promise<void> {
    return this.engine.close();
  }
}

/** The result; if there is none, the main lock is given back. */
async function orRelease<T>(main: Lease, result: Promise<T>): Promise<T> {
  try {
    return await result;
  } catch (error) {
    await main.release();
    throw error;
  }
}
