/**
 * Locks in Redis: a key with a time to live, which only its owner renews and deletes.
 *
 * A primary with replicas does not guarantee exclusion. Replication is asynchronous, so a promoted replica may not know
 * the newest lock. Clients of a new server wait for one lease, in which the old holder loses its lock; but not if it is
 * cut off together with the old primary and renews there. See docs/stores.md.
 */
import { limitInWords } from "../../duration.ts";
import { StoreError } from "../../errors.ts";
import { encodeRecord, newRecord } from "../../holder.ts";
import { isSecondHoldName, seatName } from "../../name.ts";
import { clock } from "../../os/clock.ts";
import { type EngineOptions, lockStatus } from "../engine.ts";
import { TimedLease } from "../lease.ts";
import { delay, delayed, Outage } from "../outage.ts";
import { placeByToken, requestForPlace } from "../place.ts";
import type { LockStatus, Place, Request, Store } from "../store.ts";
import type { StoreUrl } from "../store-url.ts";
import { limited, pauseUnless } from "../time-limit.ts";
import { Connection, type ReleaseListener } from "./connection.ts";
import { factsOf } from "./facts.ts";
import { type Found, holderOf, LOCK, namesIn, SHARED } from "./found.ts";
import { ACQUIRE, PROBE, RELEASE, RENEW } from "./scripts.ts";
import { type Refusal, Silence } from "./silence.ts";

/** Time limit of a request, or a third of a lease if that is less. A late request is given up with its connection. */
const REQUEST_MAX_MS = 5000;
/** Time to release what an unanswered request may have taken: the caller's own time is over. */
const UNDO_MS = 500;
/** Where a user may not subscribe, a waiter asks again after this time, which doubles up to the maximum. */
const ASK_MS = 50;
const ASK_MAX_MS = 1000;

/** Opens the store. It connects with the first request. */
export async function open(url: StoreUrl, options: EngineOptions): Promise<Store<TimedLease>> {
  return new RedisStore(url, options);
}

class RedisStore implements Store<TimedLease> {
  readonly #url: StoreUrl;
  readonly #ttl: number;
  readonly #notice: EngineOptions["notice"];
  readonly #connection: Connection;
  readonly #leases = new Set<TimedLease>();
  readonly #closing = new AbortController();
  /** The server that may have forgotten a holder, and since when this process waits for that holder to stop. */
  #unsure: { server: string; since: number } | undefined;
  #mayListen = true;

  constructor(url: StoreUrl, { ttl, notice }: EngineOptions) {
    this.#url = url;
    this.#ttl = ttl;
    this.#notice = notice;
    this.#connection = new Connection(url, Math.round(Math.min(REQUEST_MAX_MS, ttl / 3)));
  }

  location(_name: string): string {
    return this.#url.redacted;
  }

  async tryAcquire(request: Request, given?: AbortSignal): Promise<TimedLease | undefined> {
    const signal = this.#until(given?.aborted ? undefined : given);
    const attempt = this.#attempt(request);
    try {
      for (;;) {
        const result = await attempt(signal);
        if (result instanceof TimedLease) return result;
        if (result.state === "held") return undefined;
        await this.#waitOut(result, given?.aborted ? given : signal);
      }
    } catch (error) {
      await attempt.undo();
      throw signal.aborted && error === signal.reason ? delayed(signal, this.#silent) : error;
    }
  }

  async waitAcquire(request: Request, signal?: AbortSignal): Promise<TimedLease> {
    const attempt = this.#attempt(request);
    try {
      return await this.#retry<TimedLease>(request.name, signal, async (signal) => {
        const result = await attempt(signal);
        if (result instanceof TimedLease) return { done: result };
        if (result.state !== "unsure") return result;
        await this.#waitOut(result, signal);
        return { ...result, left: 0 };
      });
    } catch (error) {
      await attempt.undo();
      throw error;
    }
  }

  async takePlace(name: string, _started: number, signal?: AbortSignal): Promise<Place> {
    const lease = await this.waitAcquire(requestForPlace(name), signal);
    return placeByToken(lease, async () => (await this.#holders(seatName(name))).map(holderOf));
  }

  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    await this.#retry(name, signal, async (signal) => {
      const holders = await this.#holders(name, signal);
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
    const names = await namesIn(this.#connection);
    const all = await Promise.all(names.sort().map((name) => this.status(name)));
    return all.filter(({ state }) => state === "held");
  }

  async facts(): Promise<Record<string, string>> {
    return factsOf(String(await this.#connection.send("INFO")), await this.#connection.send("TIME"));
  }

  async close(): Promise<void> {
    this.#closing.abort(new StoreError(`${this.#url.redacted}: the store was closed`));
    await Promise.all([...this.#leases].map((lease) => lease.release()));
    await this.#connection.close();
  }

  #eval(script: string, keys: string[], args: string[] = [], signal?: AbortSignal) {
    return this.#connection.send("EVAL", [script, String(keys.length), ...keys, ...args], signal);
  }

  get #silent(): string {
    return `${this.#url.redacted}: no answer in time`;
  }

  /** A signal that fires with the given one, and when the store is closed. */
  #until(signal: AbortSignal | undefined): AbortSignal {
    return AbortSignal.any([...(signal === undefined ? [] : [signal]), this.#closing.signal]);
  }

  /**
   * A function that asks for the lock each time it is called. All calls use the same owner id, so a retry detects that
   * an earlier, unanswered call had taken the lock.
   */
  #attempt(request: Request) {
    const owner = crypto.randomUUID();
    const { name, mode } = request;
    const keys = [LOCK + name, SHARED + name];
    const lasting = isSecondHoldName(name) ? "1" : "0";
    const record = newRecord(request);
    const text = () => new TextDecoder().decode(encodeRecord(record));
    const ttl = String(this.#ttl);
    const release = async () => {
      await this.#eval(RELEASE, keys, [owner, this.#channel(name)]);
    };
    const renew = async (signal?: AbortSignal) =>
      (await this.#eval(RENEW, keys, [owner, ttl, mode, text(), lasting], signal)) === 1;
    const silence = new Silence(this.#ttl);
    let unanswered = false;
    const attempt = async (signal: AbortSignal): Promise<TimedLease | Refusal> => {
      signal.throwIfAborted();
      const sent = clock();
      unanswered = true;
      const all = [...keys, "exclusive:memory", "exclusive:token"];
      const args = [owner, ttl, mode, text(), lasting, silence.stale, this.#trusted];
      const [state, value, detail] = await this.#eval(ACQUIRE, all, args, signal);
      unanswered = false;
      if (state === "unsure") return this.#doubt(detail, value);
      if (state === "held") return detail ? silence.hear(detail, value) : { state, left: value };
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
        recordCommand: (pid, until) => {
          Object.assign(record, { command: pid, until });
          renew().catch(() => {}); // the next renewal writes the record too
        },
      });
      this.#leases.add(lease);
      return lease;
    };
    return Object.assign(attempt, {
      /** Releases what an unanswered call may have taken. If the server is unreachable, that lease runs out. */
      undo: async () => {
        if (unanswered) await limited(UNDO_MS, release).catch(() => {});
      },
    });
  }

  /**
   * Asks until it is done: at once, at each release, and when the holder's lease ends. While the server is unreachable
   * it reconnects.
   * @param ask returns its result, or the milliseconds `left` of the holder's lease
   */
  async #retry<T>(
    name: string,
    given: AbortSignal | undefined,
    ask: (signal: AbortSignal) => Promise<{ done: T } | { state?: Refusal["state"]; left: number }>,
  ): Promise<T> {
    const signal = this.#until(given);
    const outage = new Outage(this.#notice);
    let listener: ReleaseListener | undefined;
    let again = ASK_MS;
    for (let held = false; ; ) {
      try {
        signal.throwIfAborted();
        listener ??= await this.#listen(name, signal);
        const released = listener?.next();
        const result = await ask(signal);
        outage.over();
        if ("done" in result) {
          listener?.close();
          return result.done;
        }
        held = result.state !== "silent" && result.state !== "unsure";
        let left = result.left < 0 ? this.#ttl : result.left + 1; // -1: a key without a time to live
        if (listener === undefined) left = Math.min(left, again);
        again = Math.min(2 * again, ASK_MAX_MS);
        await pauseUnless(released, left, signal);
        if (listener?.broken) {
          listener.close();
          listener = undefined;
        }
      } catch (error) {
        listener?.close();
        listener = undefined;
        if (this.#closing.signal.aborted) throw this.#closing.signal.reason;
        if (signal.aborted && error === signal.reason) throw held ? error : delayed(signal, this.#silent);
        held = false;
        await outage.wait(error, signal);
      }
    }
  }

  /** A server whose memory is too short. It has been asked for long enough when a lease has passed on our own clock. */
  #doubt(server: string, left: number): Refusal {
    if (this.#unsure?.server !== server) this.#unsure = { server, since: clock() };
    return { state: "unsure", left: Math.min(left, Math.max(0, this.#unsure.since + this.#ttl - clock())) };
  }
  get #trusted(): string {
    const { server, since } = this.#unsure ?? {};
    return since !== undefined && clock() >= since + this.#ttl ? server! : "";
  }

  /** Waits until no holder that the server has forgotten, or that does not renew its lease, can still own a lock. */
  async #waitOut({ state, left }: Refusal, signal: AbortSignal): Promise<void> {
    const why = `${this.#url.redacted} ${state === "unsure" ? "looks new or restarted" : "has a silent holder"}`;
    const lease = `waiting one lease (${limitInWords(left)})`;
    this.#notice(`${why}: ${lease} in case an earlier holder is still running`);
    await delay(left + 1, why, signal);
  }

  #channel(name: string): string {
    return `exclusive:free:${this.#connection.database}:${name}`;
  }

  /** Listens for the release of a lock and, where the server sends keyspace notifications, for the end of its key. */
  async #listen(name: string, signal: AbortSignal): Promise<ReleaseListener | undefined> {
    if (!this.#mayListen) return undefined;
    const keyspace = `__keyspace@${this.#connection.database}__:`;
    const keys = [keyspace + LOCK + name, keyspace + SHARED + name];
    const listener = await this.#connection.listen(this.#channel(name), keys, signal);
    if (listener !== undefined) return listener;
    this.#mayListen = false;
    const why = "no permission to subscribe to exclusive:*, so a waiter asks once a second";
    this.#notice(`${this.#url.redacted}: ${why} (see docs/stores.md)`);
    return undefined;
  }

  /** The number of listeners; undefined where the user may not ask. */
  async #waiters(name: string): Promise<number | undefined> {
    const reply = await this.#connection
      .send("PUBSUB", ["NUMSUB", this.#channel(name)])
      .catch(() => undefined);
    return reply === undefined ? undefined : Number(reply[1] ?? Object.values(reply)[0]);
  }

  #holders(name: string, signal?: AbortSignal): Promise<Found[]> {
    return this.#eval(PROBE, [LOCK + name, SHARED + name], [], signal);
  }
}
