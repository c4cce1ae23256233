/**
 * Locks in Redis: a key with a time to live, which only its owner renews and deletes.
 *
 * A primary with replicas does not guarantee exclusion. Replication is asynchronous, so a promoted replica may not know
 * the newest lock. Clients of a new server wait for one lease, in which the old holder loses its lock; but not if it is
 * cut off together with the old primary and renews there. See docs/stores.md.
 */
import { StoreError } from "../../errors.ts";
import { encodeRecord, type Holder, holderByRecord, newRecord, parseLockFile } from "../../holder.ts";
import { clock } from "../../os/clock.ts";
import { type EngineOptions, lockStatus } from "../engine.ts";
import { pause, TimedLease } from "../lease.ts";
import type { LockStatus, Request, Store } from "../store.ts";
import type { StoreUrl } from "../store-url.ts";
import { Connection, Refused, type ReleaseListener } from "./connection.ts";
import { ACQUIRE, PROBE, RELEASE, RENEW } from "./scripts.ts";

const LOCK = "exclusive:lock:";
const SHARED = "exclusive:shared:";

/** Time limit of a request, or a third of a lease if that is less. A late request is given up with its connection. */
const REQUEST_MAX_MS = 5000;
/** A waiter that has lost the server retries after this time, which doubles up to the maximum. */
const RETRY_MS = 50;
const RETRY_MAX_MS = 1000;

/** Opens the store, and connects. */
export async function open(url: StoreUrl, options: EngineOptions): Promise<Store<TimedLease>> {
  const store = new RedisStore(url, options);
  try {
    await store.send("PING");
  } catch (error) {
    await store.close();
    throw error;
  }
  return store;
}

class RedisStore implements Store<TimedLease> {
  readonly #url: StoreUrl;
  readonly #ttl: number;
  readonly #notice: EngineOptions["notice"];
  readonly #connection: Connection;
  readonly #leases = new Set<TimedLease>();
  readonly #closing = new AbortController();

  constructor(url: StoreUrl, { ttl, notice }: EngineOptions) {
    this.#url = url;
    this.#ttl = ttl;
    this.#notice = notice;
    this.#connection = new Connection(url, Math.round(Math.min(REQUEST_MAX_MS, ttl / 3)));
  }

  location(_name: string): string {
    return this.#url.redacted;
  }

  async tryAcquire(request: Request, signal?: AbortSignal): Promise<TimedLease | undefined> {
    const attempt = this.#attempt(request);
    try {
      for (;;) {
        const result = await attempt();
        if (result instanceof TimedLease) return result;
        if (result.state === "held") return undefined;
        await this.#waitOutEarlierHolders(result.left, signal);
      }
    } catch (error) {
      await attempt.undo();
      throw error;
    }
  }

  async waitAcquire(request: Request, signal?: AbortSignal): Promise<TimedLease> {
    const attempt = this.#attempt(request);
    try {
      return await this.#retry<TimedLease>(request.name, signal, async () => {
        const result = await attempt();
        if (result instanceof TimedLease) return { done: result };
        if (result.state === "held") return result;
        await this.#waitOutEarlierHolders(result.left, signal);
        return { left: 0 };
      });
    } catch (error) {
      await attempt.undo();
      throw error;
    }
  }

  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    await this.#retry(name, signal, async () => {
      const holders = await this.#holders(name);
      return holders.length === 0
        ? { done: true }
        : { left: Math.max(...holders.map(([, , , left]) => left)) };
    });
  }

  async status(name: string): Promise<LockStatus> {
    const [found, waiters] = await Promise.all([this.#holders(name), this.#waiters(name)]);
    return lockStatus(name, this.location(name), found.map(holderOf), waiters);
  }

  async list(): Promise<LockStatus[]> {
    const names = new Set<string>();
    let cursor = "0";
    do {
      const [next, keys] = await this.send("SCAN", cursor, "MATCH", "exclusive:*", "COUNT", "500");
      for (const key of keys as string[]) {
        if (key.startsWith(LOCK)) names.add(key.slice(LOCK.length));
        if (key.startsWith(SHARED)) names.add(key.slice(SHARED.length));
      }
      cursor = next;
    } while (cursor !== "0");
    const all = await Promise.all([...names].sort().map((name) => this.status(name)));
    return all.filter(({ state }) => state === "held");
  }

  async close(): Promise<void> {
    this.#closing.abort(new StoreError(`${this.#url.redacted}: the store was closed`));
    await Promise.all([...this.#leases].map((lease) => lease.release()));
    await this.#connection.close();
  }

  send(command: string, ...args: string[]) {
    return this.#connection.send(command, ...args);
  }

  #eval(script: string, keys: string[], ...args: string[]) {
    return this.send("EVAL", script, String(keys.length), ...keys, ...args);
  }

  /**
   * A function that asks for the lock each time it is called. All calls use the same owner id, so a retry detects that
   * an earlier, unanswered call had taken the lock.
   */
  #attempt(request: Request) {
    const owner = crypto.randomUUID();
    const { name, mode } = request;
    const keys = [LOCK + name, SHARED + name];
    const record = newRecord(request);
    const text = () => new TextDecoder().decode(encodeRecord(record));
    const ttl = String(this.#ttl);
    const release = async () => {
      await this.#eval(RELEASE, keys, owner, this.#channel(name));
    };
    const renew = async () => (await this.#eval(RENEW, keys, owner, ttl, mode, text())) === 1;
    let unanswered = false;
    const attempt = async (): Promise<TimedLease | { state: "held" | "unsure"; left: number }> => {
      this.#closing.signal.throwIfAborted();
      const sent = clock();
      unanswered = true;
      const all = [...keys, "exclusive:memory", "exclusive:token"];
      const [state, value] = await this.#eval(ACQUIRE, all, owner, ttl, mode, text());
      unanswered = false;
      if (state !== "taken") return { state, left: value };
      const lease: TimedLease = new TimedLease({
        name,
        location: this.location(name),
        token: BigInt(value),
        ttl: this.#ttl,
        sent,
        renew,
        release: async () => {
          this.#leases.delete(lease);
          await release();
        },
        recordCommand: (pid) => {
          record.command = pid;
          renew().catch(() => {}); // the next renewal writes the record too
        },
      });
      this.#leases.add(lease);
      return lease;
    };
    return Object.assign(attempt, {
      /** Releases what an unanswered call may have taken. If the server is unreachable, that lease runs out. */
      undo: async () => {
        if (unanswered) await release().catch(() => {});
      },
    });
  }

  /**
   * Asks until it is done: at once, at each release, and when the holder's lease ends. While the server is unreachable
   * it reconnects, for one lease or 10 seconds, whichever is longer.
   * @param ask returns its result, or the milliseconds `left` of the holder's lease
   */
  async #retry<T>(
    name: string,
    given: AbortSignal | undefined,
    ask: () => Promise<{ done: T } | { left: number }>,
  ): Promise<T> {
    const signals = [given, this.#closing.signal].filter((signal) => signal !== undefined);
    const signal = AbortSignal.any(signals);
    let reached = clock();
    let delay = RETRY_MS;
    let listener: ReleaseListener | undefined;
    try {
      for (;;) {
        signal.throwIfAborted();
        try {
          listener ??= await this.#listen(name);
          const released = listener.next();
          const result = await ask();
          reached = clock();
          delay = RETRY_MS;
          if ("done" in result) return result.done;
          const wait = new AbortController();
          // -1 for a key without a time to live, for example after `PERSIST`.
          const left = result.left < 0 ? this.#ttl : result.left + 1;
          const end = pause(left, AbortSignal.any([signal, wait.signal]));
          try {
            await Promise.race([released, end]);
          } finally {
            wait.abort();
            end.catch(() => {});
          }
          if (listener.broken) {
            listener.close();
            listener = undefined;
          }
        } catch (error) {
          signal.throwIfAborted();
          const lost = error instanceof StoreError && !(error instanceof Refused);
          if (!lost || clock() - reached > Math.max(this.#ttl, 10_000)) throw error;
          listener?.close();
          listener = undefined;
          await pause(delay, signal);
          delay = Math.min(delay * 2, RETRY_MAX_MS);
        }
      }
    } finally {
      listener?.close();
    }
  }

  /** Waits until no holder that the server has forgotten can still own a lock. @param left in milliseconds */
  async #waitOutEarlierHolders(left: number, signal: AbortSignal | undefined): Promise<void> {
    const signals = [signal, this.#closing.signal].filter((signal) => signal !== undefined);
    const any = AbortSignal.any(signals);
    any.throwIfAborted();
    const seconds = Math.ceil(left / 100) / 10;
    this.#notice(
      `${this.#url.redacted} may have forgotten a lock (new, restarted or emptied): waiting ${seconds} s until none can be in use`,
    );
    await pause(left + 1, any);
  }

  /** The channel of release messages. Channels are common to all databases, so the name has the database's number. */
  #channel(name: string): string {
    return `exclusive:free:${this.#connection.database}:${name}`;
  }

  /** Listens for the release of a lock and, where the server sends keyspace notifications, for the end of its key. */
  #listen(name: string): Promise<ReleaseListener> {
    const keyspace = `__keyspace@${this.#connection.database}__:`;
    return this.#connection.listen(this.#channel(name), [keyspace + LOCK + name, keyspace + SHARED + name]);
  }

  /** The number of listeners; undefined where the user may not ask. */
  async #waiters(name: string): Promise<number | undefined> {
    const reply = await this.send("PUBSUB", "NUMSUB", this.#channel(name)).catch(() => undefined);
    return reply === undefined ? undefined : Number(reply[1] ?? Object.values(reply)[0]);
  }

  #holders(name: string): Promise<Found[]> {
    return this.#eval(PROBE, [LOCK + name, SHARED + name]);
  }
}

/** A holder in the answer to `PROBE`. `left`: milliseconds of its lease. */
type Found = [mode: "exclusive" | "shared", token: string, record: string, left: number];

function holderOf([mode, token, record]: Found): Holder {
  // A key that another program has set has no token.
  return { ...holderByRecord(parseLockFile(record)), mode, token: token || undefined };
}
