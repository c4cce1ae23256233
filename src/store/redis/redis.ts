/**
 * Locks in Redis: a key with a time to live, renewed and deleted only by who set it.
 *
 * What one primary with replicas cannot promise: replication is asynchronous, so a promoted replica may not know of
 * the newest lock. Whoever comes to a server that has just begun waits for one lease, so the old holder is gone by
 * then, unless it is cut off together with the old primary and goes on renewing there: docs/stores.md.
 */
import { StoreError } from "../../errors.ts";
import { encodeRecord, type Holder, holderByRecord, newRecord, parseLockFile } from "../../holder.ts";
import { clock } from "../../os/clock.ts";
import { pause, TimedLease } from "../lease.ts";
import type { EngineOptions } from "../open-store.ts";
import type { Lease, LockStatus, Request, Store } from "../store.ts";
import type { Address } from "../store-url.ts";
import { type Bell, Connection, Refused } from "./connection.ts";
import { ACQUIRE, LOOK, RELEASE, RENEW } from "./scripts.ts";

const LOCK = "exclusive:lock:";
const SHARED = "exclusive:shared:";

/** A request that takes longer, or longer than a third of a lease, is given up, and its connection with it. */
const REQUEST_MAX_MS = 5000;
/** A waiter that has lost the server tries again after so long, and less often later. */
const RETRY_MS = 50;
const RETRY_MAX_MS = 1000;

const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

export async function open(address: Address, options: EngineOptions): Promise<RedisStore> {
  const store = new RedisStore(address, options);
  try {
    await store.send("PING");
  } catch (error) {
    await store.close();
    throw error;
  }
  return store;
}

class RedisStore implements Store {
  readonly #address: Address;
  readonly #ttl: number;
  readonly #notice: EngineOptions["notice"];
  readonly #connection: Connection;
  readonly #leases = new Set<TimedLease>();
  readonly #closing = new AbortController();

  constructor(address: Address, { ttl, notice }: EngineOptions) {
    this.#address = address;
    this.#ttl = ttl;
    this.#notice = notice;
    this.#connection = new Connection(address, Math.round(Math.min(REQUEST_MAX_MS, ttl / 3)));
  }

  place(_name: string): string {
    return this.#address.shown;
  }

  async tryAcquire(request: Request, signal?: AbortSignal): Promise<Lease | undefined> {
    const attempt = this.#attempt(request);
    try {
      for (;;) {
        const result = await attempt();
        if (result instanceof TimedLease) return result;
        if (result.state === "held") return undefined;
        await this.#untilSure(result.left, signal);
      }
    } catch (error) {
      await attempt.undo();
      throw error;
    }
  }

  async waitAcquire(request: Request, signal?: AbortSignal): Promise<Lease> {
    const attempt = this.#attempt(request);
    try {
      return await this.#retry<Lease>(request.name, signal, async () => {
        const result = await attempt();
        if (result instanceof TimedLease) return { done: result };
        if (result.state === "held") return result;
        await this.#untilSure(result.left, signal);
        return { left: 0 };
      });
    } catch (error) {
      await attempt.undo();
      throw error;
    }
  }

  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    await this.#retry(name, signal, async () => {
      const found = await this.#look(name);
      return found.length === 0 ? { done: true } : { left: Math.max(...found.map(([, , , left]) => left)) };
    });
  }

  async status(name: string): Promise<LockStatus> {
    const [found, waiters] = await Promise.all([this.#look(name), this.#waiters(name)]);
    const [holder, ...others] = found.map(holderOf);
    const lockfile = this.place(name);
    if (holder === undefined) return { name, state: "free", lockfile };
    return { name, state: "held", lockfile, holder, ...(others.length > 0 && { others }), waiters };
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
    this.#closing.abort(new StoreError(`${this.#address.shown}: the store was closed`));
    await Promise.all([...this.#leases].map((lease) => lease.release()));
    await this.#connection.close();
  }

  send(command: string, ...args: string[]) {
    return this.#connection.send(command, ...args);
  }

  #eval(script: string, keys: string[], ...args: string[]) {
    return this.send("EVAL", script, String(keys.length), ...keys, ...args);
  }

  /** One way to ask for a lock, again and again: that a lost answer was a yes is found out by the next question. */
  #attempt(request: Request) {
    const owner = crypto.randomUUID();
    const { name, mode } = request;
    const keys = [LOCK + name, SHARED + name];
    const record = newRecord(request);
    const text = () => textOf(encodeRecord(record));
    const ttl = String(this.#ttl);
    const giveBack = async () => {
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
        place: this.place(name),
        token: BigInt(value),
        ttl: this.#ttl,
        sent,
        renew,
        giveBack: async () => {
          this.#leases.delete(lease);
          await giveBack();
        },
        recordCommand: (pid) => {
          record.command = pid;
          renew().catch(() => {}); // the next renewal will tell it
        },
      });
      this.#leases.add(lease);
      return lease;
    };
    return Object.assign(attempt, {
      /** What an attempt without an answer may have taken is given back, if that can be said; else it runs out. */
      undo: async () => {
        if (unanswered) await giveBack().catch(() => {});
      },
    });
  }

  /** Asks at the beginning, at each release, and when the holder's lease ends; and goes on when the server comes back. */
  async #retry<T>(
    name: string,
    given: AbortSignal | undefined,
    ask: () => Promise<{ done: T } | { left: number }>,
  ): Promise<T> {
    const signals = [given, this.#closing.signal].filter((signal) => signal !== undefined);
    const signal = AbortSignal.any(signals);
    let reached = clock();
    let delay = RETRY_MS;
    let bell: Bell | undefined;
    try {
      for (;;) {
        signal.throwIfAborted();
        try {
          bell ??= await this.#bell(name);
          const rung = bell.next();
          const result = await ask();
          reached = clock();
          delay = RETRY_MS;
          if ("done" in result) return result.done;
          const wait = new AbortController();
          // A key that somebody has made to stay for ever (`PERSIST`) has -1.
          const left = result.left < 0 ? this.#ttl : result.left + 1;
          const end = pause(left, AbortSignal.any([signal, wait.signal]));
          try {
            await Promise.race([rung, end]);
          } finally {
            wait.abort();
            end.catch(() => {});
          }
          if (bell.broken) {
            bell.close();
            bell = undefined;
          }
        } catch (error) {
          signal.throwIfAborted();
          const lost = error instanceof StoreError && !(error instanceof Refused);
          if (!lost || clock() - reached > Math.max(this.#ttl, 10_000)) throw error;
          bell?.close();
          bell = undefined;
          await pause(delay, signal);
          delay = Math.min(delay * 2, RETRY_MAX_MS);
        }
      }
    } finally {
      bell?.close();
    }
  }

  async #untilSure(left: number, signal: AbortSignal | undefined): Promise<void> {
    const signals = [signal, this.#closing.signal].filter((signal) => signal !== undefined);
    const any = AbortSignal.any(signals);
    any.throwIfAborted();
    const seconds = Math.ceil(left / 100) / 10;
    this.#notice(
      `${this.#address.shown} may have forgotten a lock (new, restarted or emptied): waiting ${seconds} s until none can be in use`,
    );
    await pause(left + 1, any);
  }

  /** Publish and subscribe know no databases: its number is in the channel's name. */
  #channel(name: string): string {
    return `exclusive:free:${this.#connection.database}:${name}`;
  }

  /** Rings when the lock is given back, and where the server tells of that, when its key is gone for other reasons. */
  #bell(name: string): Promise<Bell> {
    const keyspace = `__keyspace@${this.#connection.database}__:`;
    return this.#connection.bell(this.#channel(name), [keyspace + LOCK + name, keyspace + SHARED + name]);
  }

  async #waiters(name: string): Promise<number | undefined> {
    const reply = await this.send("PUBSUB", "NUMSUB", this.#channel(name)).catch(() => undefined);
    return reply === undefined ? undefined : Number(reply[1] ?? Object.values(reply)[0]);
  }

  #look(name: string): Promise<Found[]> {
    return this.#eval(LOOK, [LOCK + name, SHARED + name]);
  }
}

/** A holder as `LOOK` gives it: mode, token, record, milliseconds left. */
type Found = [mode: "exclusive" | "shared", token: string, record: string, left: number];

function holderOf([mode, token, record]: Found): Holder {
  return { ...holderByRecord(parseLockFile(record)), mode, token: token || undefined }; // a key may be another's
}
