/**
 * Locks of etcd: its own lock service and leases. So `etcdctl lock PREFIX/NAME` waits in the same queue.
 *
 * Who wants a lock has a key `PREFIX/NAME/LEASE` that lives as long as his lease; the oldest key has the lock (the
 * Mutex of etcd's client/concurrency). The revision that made the key is the fencing token. The key's value is the
 * holder's record. NAME is quoted as in a URL, so that no lock's keys are among those of another.
 */
import { StoreError } from "../../errors.ts";
import {
  encodeRecord,
  type Holder,
  type HolderRecord,
  holderByRecord,
  newRecord,
  parseLockFile,
} from "../../holder.ts";
import { clock } from "../../os/clock.ts";
import { pause, TimedLease } from "../lease.ts";
import type { EngineOptions } from "../open-store.ts";
import type { Lease, LockStatus, Request, Store } from "../store.ts";
import type { Address } from "../store-url.ts";
import { base64, fromBase64, Gateway, type KeyValue, Unreachable, withPrefix } from "./gateway.ts";

/** A waiter that has lost its place in the queue, or its server, tries so often to have another. */
const RETRY_MS = 500;

/** Opens the store; nothing is connected yet. */
export async function open(address: Address, options: EngineOptions): Promise<Store> {
  return new EtcdStore(address, options);
}

interface RangeResponse {
  header: { revision: string };
  kvs?: KeyValue[];
}
interface TxnResponse {
  header: { revision: string };
  succeeded?: boolean;
  responses?: { response_range?: RangeResponse }[];
}

/** The oldest key first. */
const OLDEST_FIRST = { sort_target: "CREATE", sort_order: "ASCEND" };

class EtcdLease extends TimedLease {
  override token: bigint | undefined = undefined;
}

class EtcdStore implements Store {
  readonly #gateway: Gateway;
  readonly #leases = new Set<EtcdLease>();

  constructor(
    private readonly address: Address,
    private readonly options: EngineOptions,
  ) {
    this.#gateway = new Gateway(address);
  }

  place(_name: string): string {
    return this.address.shown;
  }

  /** etcd forgets nothing when it starts again, and its leases then begin anew: there is nothing to wait for. */
  async tryAcquire(request: Request): Promise<Lease | undefined> {
    return this.#attempt(request, false, undefined);
  }

  async waitAcquire(request: Request, signal?: AbortSignal): Promise<Lease> {
    let failing: number | undefined;
    for (let first = true; ; first = false) {
      signal?.throwIfAborted();
      try {
        const lease = await this.#attempt(request, true, signal);
        if (lease !== undefined) return lease;
        failing = undefined;
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof Unreachable)) throw error;
        failing ??= clock();
        if ((first && !error.queued) || clock() > failing + this.options.ttl) throw error;
      }
      await pause(RETRY_MS, signal);
    }
  }

  /** Waits at the server for keys to go, and looks again. */
  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    const stop = signal ?? new AbortController().signal;
    for (;;) {
      const { header, kvs } = await this.#range(this.#keys(name), signal);
      if (kvs === undefined) return;
      const next = String(BigInt(header.revision) + 1n);
      const deleted = await this.#gateway
        .watchDeletion(withPrefix(this.#keys(name)), next, stop)
        .catch(() => false);
      signal?.throwIfAborted();
      if (!deleted) await pause(RETRY_MS, signal);
    }
  }

  async status(name: string): Promise<LockStatus> {
    const { kvs } = await this.#range(this.#keys(name));
    return describe(name, this.place(name), kvs ?? []);
  }

  async list(): Promise<LockStatus[]> {
    const { prefix } = this.#gateway;
    const byName = new Map<string, KeyValue[]>();
    for (const kv of (await this.#range(prefix)).kvs ?? []) {
      const name = nameOf(fromBase64(kv.key).slice(prefix.length));
      if (name !== undefined) byName.set(name, [...(byName.get(name) ?? []), kv]);
    }
    return Array.from(byName, ([name, kvs]) => describe(name, this.place(name), kvs));
  }

  async close(): Promise<void> {
    await Promise.all(Array.from(this.#leases, (lease) => lease.release()));
  }

  /** What the lock service calls the lock. */
  #lockName(name: string): string {
    return this.#gateway.prefix + encodeURIComponent(name.toWellFormed());
  }
  /** What the keys of all who want it begin with. */
  #keys(name: string): string {
    return `${this.#lockName(name)}/`;
  }

  async #range(prefix: string, signal?: AbortSignal): Promise<RangeResponse> {
    return (await this.#gateway.call<RangeResponse>(
      "kv/range",
      { ...withPrefix(prefix), ...OLDEST_FIRST },
      signal,
    ))!;
  }

  /**
   * Tries once: a new lease, a key, and the lock service where it is to wait.
   * @returns undefined when it is held; where it is to wait, when the place in the queue was lost
   */
  async #attempt(
    request: Request,
    wait: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Lease | undefined> {
    if (request.mode === "shared")
      throw new TypeError("a lock in etcd cannot be shared: etcd's lock service has no readers");
    const gateway = this.#gateway;
    const { ttl } = this.options;
    const sent = clock();
    const granted = await gateway.call<{ ID: string }>(
      "lease/grant",
      { TTL: String(Math.ceil(ttl / 1000)) },
      signal,
    );
    const hold = new Hold(gateway, this.#keys(request.name), granted!.ID, newRecord(request));
    const { endpoint } = gateway;
    const lease: EtcdLease = new EtcdLease({
      name: request.name,
      place: this.place(request.name),
      ttl,
      sent,
      renew: async (limit) => {
        const ours = await hold.renew(limit, ttl / 6 / gateway.size);
        // Who waits at a server that is cut off from the others never hears of it.
        if (ours && lease.token === undefined && gateway.endpoint !== endpoint)
          lease.lose("its server has gone");
        else if (ours && lease.token !== undefined)
          hold.watch(() => lease.lose("its key was deleted, or its lease revoked"));
        return ours;
      },
      giveBack: async (limit) => {
        this.#leases.delete(lease);
        await hold.giveBack(limit);
      },
      recordCommand: (pid) => hold.recordCommand(pid),
    });
    this.#leases.add(lease);
    const stop = AbortSignal.any([lease.lost, ...(signal ? [signal] : [])]);
    let got = false;
    try {
      got = (await hold.take(wait, stop)) || (wait && (await this.#wait(request.name, hold, stop)));
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof Unreachable) error.queued = true;
      if (!lease.lost.aborted) throw error;
    } finally {
      if (got && !lease.lost.aborted) {
        lease.token = BigInt(hold.revision!);
        hold.watch(() => lease.lose("its key was deleted, or its lease revoked"));
      } else await lease.release();
    }
    signal?.throwIfAborted();
    return lease.token === undefined ? undefined : lease;
  }

  /** Waits in the lock service. That it answers says little: it answers when the key is gone too. So we look. */
  async #wait(name: string, hold: Hold, stop: AbortSignal): Promise<boolean> {
    const body = { name: base64(this.#lockName(name)), lease: hold.id };
    await this.#gateway.call("lock/lock", body, stop, Number.POSITIVE_INFINITY);
    return hold.confirm(stop);
  }
}

/** Our key for a lock, and the lease that it lives on. */
class Hold {
  /** The revision that made the key. */
  revision: string | undefined;
  readonly #key: string;
  readonly #released = new AbortController();
  #watching = false;

  constructor(
    private readonly gateway: Gateway,
    private readonly keys: string,
    readonly id: string,
    private readonly record: HolderRecord,
  ) {
    // As the lock service names it: the lease in hexadecimal.
    this.#key = base64(keys + BigInt.asUintN(64, BigInt(id)).toString(16));
  }

  /**
   * Makes the key if nobody has one, or in any case.
   * @returns do we have the lock?
   */
  async take(inAnyCase: boolean, signal: AbortSignal): Promise<boolean> {
    const range = withPrefix(this.keys);
    const look = { request_range: { ...range, ...OLDEST_FIRST } };
    const put = { request_put: this.#put() };
    const answer = await this.#txn(
      // True of all keys there are only if there is none.
      { ...range, target: "CREATE", result: "EQUAL", create_revision: "0" },
      [put, look],
      inAnyCase ? [put, look] : [look],
      signal,
    );
    const kvs = answer.responses?.at(-1)?.response_range?.kvs ?? [];
    this.revision = kvs.find(({ key }) => key === this.#key)?.create_revision;
    // Asked twice, because the first answer was lost, we may find the key that we made ourselves.
    return kvs[0]?.key === this.#key;
  }

  /** Is the key still there, and the oldest? If so the record says that we hold the lock from now on. */
  async confirm(signal: AbortSignal): Promise<boolean> {
    this.record.acquired = new Date().toISOString();
    const look = { request_range: { ...withPrefix(this.keys), ...OLDEST_FIRST, limit: "1" } };
    const answer = await this.#ifOurs([{ request_put: this.#put() }, look], signal);
    return answer.responses?.at(-1)?.response_range?.kvs?.[0]?.key === this.#key;
  }

  /** Renews the lease, and looks whether the key is still there. */
  async renew(signal: AbortSignal, limit: number): Promise<boolean> {
    const [kept, found] = await Promise.all([
      this.gateway.call<{ TTL?: string }>("lease/keepalive", { ID: this.id }, signal, limit),
      this.revision === undefined
        ? undefined
        : this.gateway.call<RangeResponse>("kv/range", { key: this.#key }, signal, limit),
    ]);
    return (
      Number(kept?.TTL ?? 0) > 0 &&
      (this.revision === undefined || found?.kvs?.[0]?.create_revision === this.revision)
    );
  }

  /** Tells when the key is deleted. Called again, it goes on where a watch has ended. */
  watch(deleted: () => void): void {
    if (this.#watching) return;
    this.#watching = true;
    this.gateway
      .watchDeletion({ key: this.#key }, this.revision!, this.#released.signal)
      .then((yes) => yes && !this.#released.signal.aborted && deleted())
      .catch(() => {})
      .finally(() => {
        this.#watching = false;
      });
  }

  recordCommand(pid: number): void {
    this.record.command = pid;
    this.#ifOurs([{ request_put: this.#put() }], this.#released.signal).catch(() => {}); // for people: the lock does not depend on it
  }

  async giveBack(signal: AbortSignal): Promise<void> {
    this.#released.abort();
    await this.gateway.call("lease/revoke", { ID: this.id }, signal);
  }

  #put() {
    return {
      key: this.#key,
      value: Buffer.from(encodeRecord(this.record)).toString("base64"),
      lease: this.id,
    };
  }

  #ifOurs(success: object[], signal: AbortSignal): Promise<TxnResponse> {
    const compare = { key: this.#key, target: "CREATE", result: "EQUAL", create_revision: this.revision };
    return this.#txn(compare, success, [], signal);
  }

  async #txn(
    compare: object,
    success: object[],
    failure: object[],
    signal: AbortSignal,
  ): Promise<TxnResponse> {
    const answer = await this.gateway.call<TxnResponse>(
      "kv/txn",
      { compare: [compare], success, failure },
      signal,
    );
    if (answer === undefined) throw new StoreError("the lease has ended");
    return answer;
  }
}

/** The lock's name in a key without its prefix. */
function nameOf(key: string): string | undefined {
  const [, quoted] = /^([^/]+)\/[0-9a-f]+$/.exec(key) ?? [];
  try {
    return quoted === undefined ? undefined : decodeURIComponent(quoted);
  } catch {
    return undefined;
  }
}

function holderOf({ value, create_revision }: KeyValue): Holder {
  return { ...holderByRecord(parseLockFile(fromBase64(value))), token: create_revision };
}

/** @param keys of one lock, the oldest first */
function describe(name: string, place: string, [first, ...waiting]: KeyValue[]): LockStatus {
  if (first === undefined) return { name, state: "free", lockfile: place };
  return { name, state: "held", lockfile: place, holder: holderOf(first), waiters: waiting.length };
}
