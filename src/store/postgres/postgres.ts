/**
 * Locks in PostgreSQL: session-level advisory locks, each on its own connection. They need no table, no extension and
 * no superuser.
 *
 * The session is the lock: it ends with the connection, and in no other way (PostgreSQL manual, 13.3.5). A client
 * cannot see that the server has given up its connection. So each lock also has a deadline here: a heartbeat that is
 * not answered within the lease means that the lock is lost. The server is set to keep a silent client longer.
 *
 * The holder is published in `pg_stat_activity`: `application_name` has the lock's name, which every user can read; a
 * comment in the last statement has the record, which only the same role and `pg_read_all_stats` can read.
 */
import { limitInWords } from "../../duration.ts";
import { acquiredNow, type HolderRecord, newRecord } from "../../holder.ts";
import { seatName } from "../../name.ts";
import { clock } from "../../os/clock.ts";
import type { EngineOptions } from "../engine.ts";
import { TimedLease } from "../lease.ts";
import { delay, delayed, isTemporary, Outage } from "../outage.ts";
import { placeByToken, requestForPlace } from "../place.ts";
import type { LockStatus, Place, Request, Store } from "../store.ts";
import type { StoreUrl } from "../store-url.ts";
import { factsOf } from "./facts.ts";
import { hostsOf } from "./hosts.ts";
import { comment, describe, holdersIn, keyOf, type LockRow, locksIn, nameOf } from "./lock-rows.ts";
import {
  APPLICATION,
  message,
  PRIMARY_SINCE,
  pooled,
  RECOVERED,
  REMEMBERS_SINCE,
  type Row,
  SESSIONS_KILLED,
  Session,
} from "./session.ts";
import { holdersOf, Sight } from "./sight.ts";

/** Opens the store. It connects with the first request. */
export async function open(url: StoreUrl, options: EngineOptions): Promise<Store<TimedLease>> {
  return new PostgresStore(url, options);
}

class PostgresStore implements Store<TimedLease> {
  readonly #sessions = new Set<Session>();
  readonly #sessionOf = new WeakMap<TimedLease, Session>();
  /** The URL for each host; the one that was the primary server last is the first. */
  readonly #hosts: string[];
  #closed = false;

  constructor(
    private readonly url: StoreUrl,
    private readonly options: EngineOptions,
  ) {
    this.#hosts = hostsOf(url);
  }

  location(_name: string): string {
    return this.url.redacted;
  }

  async tryAcquire(request: Request, given?: AbortSignal): Promise<TimedLease | undefined> {
    const signal = given?.aborted ? undefined : given;
    const { name } = request;
    const record = newRecord(request);
    let session: Session | undefined;
    try {
      session = await this.#open(name, signal);
      // A probe holds the lock for a moment, see `waitFree`. So a refusal is believed only when another session than a
      // probe's holds the lock.
      for (let probes = 0; ; probes++) {
        const query = `SELECT pg_try_advisory_lock${suffix(request)}(${keyOf(name)}) AS got`;
        const [row] = await session.query(query, comment(name, record), signal);
        if (row!.got === true) return await this.#confirmOwnership(session, request, record, given);
        const holds = ({ granted, query }: LockRow) => granted && !isProbe(query);
        if (probes > 0 && (probes > PROBES_MAX || (await locksIn(session, keyOf(name), signal)).some(holds)))
          break;
      }
    } catch (error) {
      await session?.close();
      throw signal?.aborted && error === signal.reason ? delayed(signal, this.#silent) : error;
    }
    await session.close();
    return undefined;
  }

  async waitAcquire(request: Request, signal?: AbortSignal): Promise<TimedLease> {
    const outage = new Outage(this.options.notice);
    let interrupted: number | undefined;
    for (;;) {
      signal?.throwIfAborted();
      let session: Session | undefined;
      let held = false;
      try {
        session = await this.#open(request.name, signal);
        const sight = new Sight(session.killed, interrupted);
        const record = newRecord(request);
        const take = `pg_advisory_lock${suffix(request)}(${keyOf(request.name)})`;
        const columns = `${SESSIONS_KILLED} AS killed, ${holdersOf(keyOf(request.name))} AS holders`;
        for (;;) {
          const row = await session.wait(take, comment(request.name, record), columns, signal);
          outage.over();
          if (row.got === true) break;
          held = true;
          sight.see(row.killed, row.holders as string);
        }
        held = false;
        Object.assign(record, acquiredNow());
        return await this.#confirmOwnership(session, request, record, signal, sight);
      } catch (error) {
        // A restarting server, or an administrator, may have ended the holder's session too.
        if (session?.closed.aborted) interrupted = clock();
        await session?.close();
        if (signal?.aborted && error === signal.reason) throw held ? error : delayed(signal, this.#silent);
        if (this.#closed) throw error;
        await outage.wait(error, signal);
      }
    }
  }

  /** Places are seen as far as their sessions are of the same role. */
  async takePlace(name: string, _started: number, signal?: AbortSignal): Promise<Place> {
    const lease = await this.waitAcquire(requestForPlace(name), signal);
    const session = this.#sessionOf.get(lease)!;
    return placeByToken(lease, async () => holdersIn(await locksIn(session, keyOf(seatName(name)))));
  }

  /**
   * Waits in the server's queue. PostgreSQL cannot wait without acquiring, so this holds the lock for the length of one
   * statement. A `tryAcquire` that fails in that moment retries.
   */
  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    const outage = new Outage(this.options.notice);
    for (;;) {
      signal?.throwIfAborted();
      let session: Session | undefined;
      try {
        session = await this.#open(name, signal);
        while ((await session.wait(`${PROBE}(${keyOf(name)})`, "", "1 AS one", signal)).got !== true)
          outage.over();
        return;
      } catch (error) {
        if (this.#closed || (signal?.aborted && error === signal.reason)) throw error;
        await outage.wait(error, signal);
      } finally {
        await session?.close();
      }
    }
  }

  async status(name: string): Promise<LockStatus> {
    const session = await this.#open("");
    try {
      return describe(name, this.location(name), await locksIn(session, keyOf(name)));
    } finally {
      await session.close();
    }
  }

  async list(): Promise<LockStatus[]> {
    const session = await this.#open("");
    try {
      const rows = await locksIn(session);
      const ours = rows.filter(({ application }) => application?.startsWith(APPLICATION));
      const byKey = Map.groupBy(ours, ({ key }) => key);
      return Array.from(byKey.values(), (rows) => {
        const name = nameOf(rows);
        return describe(name, this.location(name), rows);
      });
    } finally {
      await session.close();
    }
  }

  async facts(): Promise<Record<string, string>> {
    const session = await this.#open("");
    try {
      return await factsOf(session);
    } finally {
      await session.close();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(Array.from(this.#sessions, (session) => session.close()));
  }

  get #silent(): string {
    return `${this.url.redacted}: no answer in time`;
  }

  /** Opens a session at the primary server: at the host that was it last, else at the next one. */
  async #open(name: string, signal?: AbortSignal): Promise<Session> {
    const { ttl } = this.options;
    let failure: unknown;
    for (const host of [...this.#hosts]) {
      try {
        const oneOfMany = this.#hosts.length > 1;
        const session = await Session.open(this.url, host, { name, ttl, oneOfMany }, signal);
        this.#sessions.add(session);
        session.closed.addEventListener("abort", () => this.#sessions.delete(session), { once: true });
        return session;
      } catch (error) {
        if (!isTemporary(error)) throw error;
        failure = error;
        if (this.#hosts[0] === host) this.#hosts.push(this.#hosts.shift()!);
      }
    }
    throw failure;
  }

  /** How long, in milliseconds, a holder of before may still be running, as far as the server knows. */
  async #unsure(session: Session, { remembered, recovered }: Row, sight: Sight): Promise<number> {
    const { ttl } = this.options;
    const known = [remembered as number, clock() - sight.interrupted];
    if (recovered === true) {
      // Not every server lets every user read it. Then only the time since our first sight of this server counts.
      const [row] = await session.query(PRIMARY_SINCE).catch(() => [{ since: 0 }]);
      if (row!.since !== null) known.push(Math.max(row!.since as number, clock() - session.opened));
    }
    return Math.min(ttl, ttl - Math.min(...known)); // a server's clock that was set back adds no more than a lease
  }

  /**
   * Makes a lease of the lock that this session has taken: obtains a fencing token, and waits out an earlier holder
   * that may still be running.
   */
  async #confirmOwnership(
    session: Session,
    { name, mode }: Request,
    record: HolderRecord,
    signal: AbortSignal | undefined,
    sight = new Sight(session.killed),
  ): Promise<TimedLease> {
    const { ttl, notice } = this.options;
    // The message makes the commit wait for the disk. Without it a crash could undo the transaction id, and a later
    // holder would get the same token.
    const [row] = await session.query(
      `SELECT pg_logical_emit_message(true, 'exclusive', ''), pg_current_xact_id()::text AS token,
         ${REMEMBERS_SINCE} AS remembered, ${RECOVERED} AS recovered, ${SESSIONS_KILLED} AS killed`,
      comment(name, record),
    );
    const token = BigInt(row!.token as string);
    sight.taken(row!.killed);
    const left = await this.#unsure(session, row!, sight);
    if (left > 0) {
      const why = `${this.url.redacted} has just ended sessions, or has just become the primary server`;
      notice(`${why}: waiting ${limitInWords(left)} in case an earlier holder is still running`);
      await delay(left, why, signal);
    }
    const heartbeat = async () => {
      const [row] = await session.query("SELECT pg_backend_pid() AS pid", comment(name, record, token));
      return row!.pid === session.pid;
    };
    const sent = clock();
    if (!(await heartbeat())) throw pooled(this.url);
    const lease = new TimedLease({
      name,
      location: this.location(name),
      token,
      ttl,
      sent,
      renew: heartbeat,
      async release() {
        await session
          .query(`SELECT pg_advisory_unlock${suffix({ mode })}(${keyOf(name)})`)
          .finally(() => session.close());
      },
      recordCommand(pid, until) {
        Object.assign(record, { command: pid, until });
        heartbeat().catch(() => {}); // the next renewal publishes the record too
      },
    });
    this.#sessionOf.set(lease, session);
    session.closed.addEventListener("abort", () => lease.lose(message(session.closed.reason)), {
      once: true,
    });
    if (session.closed.aborted) throw session.closed.reason;
    return lease;
  }
}

/** The call of `waitFree`, by which `tryAcquire` recognizes a probe. */
const PROBE = "pg_advisory_xact_lock";
/** The number of probes in a row after which `tryAcquire` reports the lock as held. */
const PROBES_MAX = 50;

const isProbe = (query: string | null): boolean => query?.startsWith(`DO $$ BEGIN PERFORM ${PROBE}`) === true;

/** The suffix of PostgreSQL's lock functions. */
const suffix = ({ mode }: Pick<Request, "mode">): string => (mode === "shared" ? "_shared" : "");
