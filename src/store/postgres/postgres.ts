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
import { WrongArgument } from "../../errors.ts";
import { acquiredNow, type HolderRecord, newRecord } from "../../holder.ts";
import { clock } from "../../os/clock.ts";
import type { EngineOptions } from "../engine.ts";
import { pause, TimedLease } from "../lease.ts";
import type { LockStatus, Request, Store } from "../store.ts";
import type { StoreUrl } from "../store-url.ts";
import { comment, describe, keyOf, type LockRow, nameOf } from "./lock-rows.ts";
import { APPLICATION, message, pooled, REMEMBERS_SINCE, SESSIONS_KILLED, Session } from "./session.ts";

/** A waiter whose session has ended pauses this long before it reconnects. */
const RECONNECT_MS = 1000;

/** Opens the store. It connects with the first request. */
export async function open(url: StoreUrl, options: EngineOptions): Promise<Store<TimedLease>> {
  return new PostgresStore(url, options);
}

class PostgresStore implements Store<TimedLease> {
  readonly #sessions = new Set<Session>();
  #closed = false;

  constructor(
    private readonly url: StoreUrl,
    private readonly options: EngineOptions,
  ) {
    if (!URL.canParse(url.url)) throw new WrongArgument(`not a URL: ${url.redacted}`);
  }

  location(_name: string): string {
    return this.url.redacted;
  }

  async tryAcquire(request: Request, signal?: AbortSignal): Promise<TimedLease | undefined> {
    const record = newRecord(request);
    const session = await this.#open(request.name);
    try {
      // A probe holds the lock for a moment, see `waitFree`. So a refusal is believed only when another session than a
      // probe's holds the lock.
      for (let probes = 0; ; probes++) {
        const query = `SELECT pg_try_advisory_lock${suffix(request)}(${keyOf(request.name)}) AS got`;
        const [row] = await session.query(query, comment(request.name, record));
        if (row!.got === true) return await this.#confirmOwnership(session, request, record, signal);
        const holds = ({ granted, query }: LockRow) => granted && query?.startsWith(PROBE) !== true;
        if (
          probes > 0 &&
          (probes > PROBES_MAX || (await this.#locks(session, keyOf(request.name))).some(holds))
        )
          break;
      }
    } catch (error) {
      await session.close();
      throw error;
    }
    await session.close();
    return undefined;
  }

  async waitAcquire(request: Request, signal?: AbortSignal): Promise<TimedLease> {
    let interrupted: number | undefined;
    for (;;) {
      signal?.throwIfAborted();
      let session: Session | undefined;
      try {
        session = await this.#open(request.name);
        const record = newRecord(request);
        const query = `SELECT pg_advisory_lock${suffix(request)}(${keyOf(request.name)})`;
        await session.wait(query, comment(request.name, record), signal);
        Object.assign(record, acquiredNow());
        return await this.#confirmOwnership(session, request, record, signal, interrupted);
      } catch (error) {
        const ended = session?.closed.aborted === true;
        await session?.close();
        signal?.throwIfAborted();
        if (this.#closed) throw error;
        // A restarting server, or an administrator, may have ended the holder's session too.
        const patience = interrupted === undefined ? ended : clock() < interrupted + this.options.ttl;
        if (!patience) throw error;
        if (interrupted === undefined || ended) {
          interrupted = clock();
          this.options.notice(`${message(error)}; trying again`);
        }
        await pause(RECONNECT_MS, signal);
      }
    }
  }

  /**
   * Waits in the server's queue. PostgreSQL cannot wait without acquiring, so this holds the lock for the length of one
   * statement. A `tryAcquire` that fails in that moment retries.
   */
  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    const session = await this.#open(name);
    try {
      await session.wait(`${PROBE}(${keyOf(name)})`, "", signal);
    } finally {
      await session.close();
    }
    signal?.throwIfAborted();
  }

  async status(name: string): Promise<LockStatus> {
    const session = await this.#open("");
    try {
      return describe(name, this.location(name), await this.#locks(session, keyOf(name)));
    } finally {
      await session.close();
    }
  }

  async list(): Promise<LockStatus[]> {
    const session = await this.#open("");
    try {
      const rows = await this.#locks(session);
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

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(Array.from(this.#sessions, (session) => session.close()));
  }

  async #open(name: string): Promise<Session> {
    const session = await Session.open(this.url, name, this.options.ttl);
    this.#sessions.add(session);
    session.closed.addEventListener("abort", () => this.#sessions.delete(session), { once: true });
    return session;
  }

  /**
   * Makes a lease of the lock that this session has taken: obtains a fencing token, and waits out an earlier holder
   * that may still be running.
   * @param interrupted when the server was last seen to end sessions, on `clock()`
   */
  async #confirmOwnership(
    session: Session,
    { name, mode }: Request,
    record: HolderRecord,
    signal: AbortSignal | undefined,
    interrupted = Number.NEGATIVE_INFINITY,
  ): Promise<TimedLease> {
    const { ttl, notice } = this.options;
    // The message makes the commit wait for the disk. Without it a crash could undo the transaction id, and a later
    // holder would get the same token.
    const [row] = await session.query(
      `SELECT pg_logical_emit_message(true, 'exclusive', ''), pg_current_xact_id()::text AS token, 
         ${REMEMBERS_SINCE} AS remembered, ${SESSIONS_KILLED} AS killed`,
      comment(name, record),
    );
    const token = BigInt(row!.token as string);
    // An administrator has ended a session since this one began: it may have been the holder's.
    if (row!.killed !== session.killed) interrupted = clock();
    const left = ttl - Math.min(row!.remembered as number, clock() - interrupted);
    if (left > 0) {
      notice(
        `${this.url.redacted} has ended sessions a moment ago: waiting ${Math.ceil(left / 1000)} s for a holder of before to stop`,
      );
      await pause(left, signal);
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
      recordCommand(pid) {
        record.command = pid;
        heartbeat().catch(() => {}); // the next renewal publishes the record too
      },
    });
    session.closed.addEventListener("abort", () => lease.lose(message(session.closed.reason)), {
      once: true,
    });
    if (session.closed.aborted) throw session.closed.reason;
    return lease;
  }

  /** The holders and waiters of the locks in this database, the holders first. */
  async #locks(session: Session, key?: bigint): Promise<LockRow[]> {
    const rows = await session.query(
      `SELECT key::text, granted, application_name AS application, query
       FROM (SELECT (classid::bigint << 32) | objid::bigint AS key, granted, pid
             FROM pg_locks JOIN pg_database d ON d.oid = database AND datname = current_database()
             WHERE locktype = 'advisory' AND objsubid = 1) AS l
       LEFT JOIN pg_stat_activity USING (pid)
       ${key === undefined ? "" : `WHERE key = ${key}`} ORDER BY granted DESC, state_change`,
    );
    return rows as unknown as LockRow[];
  }
}

/** The start of the statement of `waitFree`, by which `tryAcquire` recognizes a probe. */
const PROBE = "SELECT pg_advisory_xact_lock";
/** The number of probes in a row after which `tryAcquire` reports the lock as held. */
const PROBES_MAX = 50;

/** The suffix of PostgreSQL's lock functions. */
const suffix = ({ mode }: Pick<Request, "mode">): string => (mode === "shared" ? "_shared" : "");
