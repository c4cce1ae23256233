/**
 * Locks in etcd: its lock service and its leases. So `etcdctl lock PREFIX/NAME` waits in the same queue.
 *
 * Each contender creates a key `PREFIX/NAME/LEASE`, bound to its lease; the oldest key owns the lock, as with the Mutex
 * of etcd's client/concurrency. The revision that created the key is the fencing token, and the key's value is the
 * holder's record. NAME is quoted as in a URL, so that no lock's keys are among those of another.
 */
import { WrongArgument } from "../../errors.ts";
import { type Holder, holderByRecord, newRecord, parseLockFile } from "../../holder.ts";
import { isSeatName, seatName } from "../../name.ts";
import { clock } from "../../os/clock.ts";
import { type EngineOptions, lockStatus } from "../engine.ts";
import { TimedLease } from "../lease.ts";
import { delayed, Outage } from "../outage.ts";
import { placeByToken, requestForPlace } from "../place.ts";
import type { LockStatus, Place, Request, Store } from "../store.ts";
import type { StoreUrl } from "../store-url.ts";
import { pause } from "../time-limit.ts";
import { base64, fromBase64, Gateway, type KeyValue, type RangeResponse, withPrefix } from "./gateway.ts";
import { Hold, OLDEST_FIRST } from "./hold.ts";

/** A waiter that has lost its place in the queue, or its server, pauses this long before it queues again. */
const RETRY_MS = 500;

/** Opens the store. It connects with the first request. */
export async function open(url: StoreUrl, options: EngineOptions): Promise<Store<TimedLease>> {
  return new EtcdStore(url, options);
}

/** A lease that has no token while it waits in the queue. */
class EtcdLease extends TimedLease {
  override token: bigint | undefined = undefined;
}

class EtcdStore implements Store<TimedLease> {
  readonly #gateway: Gateway;
  readonly #leases = new Set<EtcdLease>();

  constructor(
    private readonly url: StoreUrl,
    private readonly options: EngineOptions,
  ) {
    this.#gateway = new Gateway(url);
  }

  location(_name: string): string {
    return this.url.redacted;
  }

  /** Never waits for a lease: a restarted etcd has forgotten nothing, and extends every lease by its full length. */
  async tryAcquire(request: Request, given?: AbortSignal): Promise<TimedLease | undefined> {
    const signal = given?.aborted ? undefined : given;
    try {
      return await this.#attempt(request, undefined, signal);
    } catch (error) {
      throw signal?.aborted && error === signal.reason ? delayed(signal, this.#silent) : error;
    }
  }

  async waitAcquire(request: Request, signal?: AbortSignal): Promise<TimedLease> {
    const outage = new Outage(this.options.notice);
    for (;;) {
      const queue = { joined: () => outage.over(), held: false };
      try {
        signal?.throwIfAborted();
        const lease = await this.#attempt(request, queue, signal);
        if (lease !== undefined) return lease;
        await pause(RETRY_MS, signal);
      } catch (error) {
        if (signal?.aborted && error === signal.reason)
          throw queue.held ? error : delayed(signal, this.#silent);
        await outage.wait(error, signal);
      }
    }
  }

  /** A place is a key in a queue that nothing waits in: etcd has no shared locks. */
  async takePlace(name: string, _started: number, signal?: AbortSignal): Promise<Place> {
    const lease = await this.waitAcquire(requestForPlace(name), signal);
    const keys = this.#keys(seatName(name));
    return placeByToken(lease, async () => ((await this.#range(keys)).kvs ?? []).map(holderOf));
  }

  /** Watches the lock's keys in the server. A deleted key may not have been the last, so the range is read again. */
  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    const outage = new Outage(this.options.notice);
    const stop = signal ?? new AbortController().signal;
    for (;;) {
      try {
        const { header, kvs } = await this.#range(this.#keys(name), signal);
        outage.over();
        if (kvs === undefined) return;
        const next = String(BigInt(header.revision) + 1n);
        let deleted = false;
        const see = () => {
          deleted = true;
          return false;
        };
        await this.#gateway.watchDeletion(withPrefix(this.#keys(name)), next, see, stop).catch(() => {});
        signal?.throwIfAborted();
        if (!deleted) await pause(RETRY_MS, signal);
      } catch (error) {
        if (signal?.aborted) throw signal.reason;
        await outage.wait(error, signal);
      }
    }
  }

  async status(name: string): Promise<LockStatus> {
    const { kvs } = await this.#range(this.#keys(name));
    return this.#describe(name, kvs ?? []);
  }

  async list(): Promise<LockStatus[]> {
    const { prefix } = this.#gateway;
    const byName = new Map<string, KeyValue[]>();
    for (const kv of (await this.#range(prefix)).kvs ?? []) {
      const name = nameOf(fromBase64(kv.key).slice(prefix.length));
      if (name !== undefined) byName.set(name, [...(byName.get(name) ?? []), kv]);
    }
    return Array.from(byName, ([name, kvs]) => this.#describe(name, kvs));
  }

  async facts(): Promise<Record<string, string>> {
    const status = await this.#gateway.call<{ version?: string }>("maintenance/status", {});
    return {
      version: status?.version ?? "unknown",
      endpoints: `${this.#gateway.size} in the URL: name all members of the cluster`,
      "smallest sensible --ttl": "6s: an election takes about two seconds",
    };
  }

  async close(): Promise<void> {
    await Promise.all(Array.from(this.#leases, (lease) => lease.release()));
    this.#gateway.close();
  }

  get #silent(): string {
    return `${this.url.redacted}: no answer in time`;
  }

  /** The lock's name in the lock service. */
  #lockName(name: string): string {
    return this.#gateway.prefix + encodeURIComponent(name.toWellFormed());
  }
  /** The prefix of all contenders' keys. */
  #keys(name: string): string {
    return `${this.#lockName(name)}/`;
  }

  async #range(prefix: string, signal?: AbortSignal): Promise<RangeResponse> {
    const body = { ...withPrefix(prefix), ...OLDEST_FIRST };
    return (await this.#gateway.call<RangeResponse>("kv/range", body, signal))!;
  }

  /** @param keys of one lock, the oldest first */
  #describe(name: string, [first, ...waiting]: KeyValue[]): LockStatus {
    const holders = first === undefined ? [] : [holderOf(first)];
    return lockStatus(name, this.location(name), holders, waiting.length);
  }

  /**
   * Tries once: grants a lease, creates a key, and waits in the lock service if it may.
   * @param queue of a request that waits; undefined for another one
   * @returns undefined when the lock is held; with a queue, when the place in the queue was lost
   */
  async #attempt(
    request: Request,
    queue: Queue | undefined,
    signal: AbortSignal | undefined,
  ): Promise<TimedLease | undefined> {
    const isPlace = isSeatName(request.name);
    if (request.mode === "shared" && !isPlace)
      throw new WrongArgument("a lock in etcd cannot be shared: etcd's lock service has no readers");
    const gateway = this.#gateway;
    const { ttl } = this.options;
    const sent = clock();
    const body = { TTL: String(Math.ceil(ttl / 1000)) };
    const granted = await gateway.call<{ ID: string }>("lease/grant", body, signal);
    const hold = new Hold(gateway, this.#keys(request.name), granted!.ID, newRecord(request));
    const { endpoint } = gateway;
    const deleted = () => lease.lose("its key was deleted, or its lease revoked");
    const lease: EtcdLease = new EtcdLease({
      name: request.name,
      location: this.location(request.name),
      ttl,
      sent,
      renew: async (limit) => {
        const ours = await hold.renew(limit, ttl / 6 / gateway.size);
        // A server that is cut off from the cluster never answers its waiters.
        if (ours && lease.token === undefined && gateway.endpoint !== endpoint)
          lease.lose("its server has gone");
        else if (ours && lease.token !== undefined) hold.watch(deleted);
        return ours;
      },
      release: async (limit) => {
        this.#leases.delete(lease);
        await hold.release(limit);
      },
      recordCommand: (pid, until) => hold.recordCommand(pid, until),
    });
    this.#leases.add(lease);
    const stop = AbortSignal.any([lease.lost, ...(signal ? [signal] : [])]);
    let owned = false;
    try {
      owned = (await hold.take(queue !== undefined, stop)) || isPlace;
      if (!owned && queue !== undefined) {
        queue.held = true;
        queue.joined();
        owned = await this.#wait(request.name, hold, stop);
      }
    } catch (error) {
      signal?.throwIfAborted();
      if (!lease.lost.aborted) throw error;
    } finally {
      if (owned && !lease.lost.aborted) {
        lease.token = BigInt(hold.revision!);
        hold.watch(deleted);
      } else await lease.release();
    }
    signal?.throwIfAborted();
    return lease.token === undefined ? undefined : lease;
  }

  /** Waits in the lock service. `lock/lock` also returns when the key was deleted, so ownership is verified then. */
  async #wait(name: string, hold: Hold, stop: AbortSignal): Promise<boolean> {
    const body = { name: base64(this.#lockName(name)), lease: hold.id };
    await this.#gateway.call("lock/lock", body, stop, Number.POSITIVE_INFINITY);
    return hold.confirm(stop);
  }
}

/** A request that waits. */
interface Queue {
  /** It has a place. */
  joined(): void;
  /** The lock is known to be held. */
  held: boolean;
}

/** The lock's name in a key without its prefix; undefined for a key that is not a contender's. */
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
