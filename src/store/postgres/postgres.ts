/**
 * Locks of PostgreSQL: session-level advisory locks, each on a connection of its own. No table, no extension, no
 * superuser.
 *
 * The session is the lock: it ends with the connection, and in no other way (PostgreSQL manual, 13.3.5). What we add
 * is a deadline of our own, since a client cannot see that the server has given its connection up: a heartbeat that is
 * not answered within the lease counts as the end. The server is told to keep a silent client for longer than that.
 *
 * Who holds a lock stands where every session's activity stands, in `pg_stat_activity`: `application_name` says the
 * lock's name to everybody, and a comment in the text of the last statement has the record, for those who may read it.
 */
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
import { APPLICATION, KILLS, MEMORY, message, pooled, Session } from "./session.ts";

/** Of a statement's text the server shows 1024 bytes, unless `track_activity_query_size` says otherwise. */
const COMMENT_MAX = 960;

/** A waiter whose session was ended tries so often to have another. */
const RECONNECT_MS = 1000;

/** Opens the store; nothing is connected yet. */
export async function open(address: Address, options: EngineOptions): Promise<Store> {
  return new PostgresStore(address, options);
}

/**
 * The advisory lock of a name: the first 64 bits of its SHA-256. Two names whose bits are the same exclude each other,
 * and so does a lock that the application takes under that very number; neither is likely in the life of a database.
 */
export function keyOf(name: string): bigint {
  const hash = new Bun.CryptoHasher("sha256").update(name).digest();
  return hash.readBigInt64BE(0);
}

class PostgresStore implements Store {
  readonly #sessions = new Set<Session>();
  #closed = false;

  constructor(
    private readonly address: Address,
    private readonly options: EngineOptions,
  ) {
    if (!URL.canParse(address.url)) throw new TypeError(`not a URL: ${address.shown}`);
  }

  place(_name: string): string {
    return this.address.shown;
  }

  async tryAcquire(request: Request, signal?: AbortSignal): Promise<Lease | undefined> {
    const record = newRecord(request);
    const session = await this.#open(request.name);
    try {
      // Somebody who waits until nobody holds the lock holds it for a moment: see `waitFree`.
      for (let look = 0; ; look++) {
        const query = `SELECT pg_try_advisory_lock${suffix(request)}(${keyOf(request.name)}) AS got`;
        const [row] = await session.query(query, comment(request.name, record));
        if (row!.got === true) return await this.#settle(session, request, record, signal);
        const holds = ({ granted, query }: LockRow) => granted && query?.startsWith(LOOK) !== true;
        if (look > 0 && (look > LOOKS_MAX || (await this.#locks(session, keyOf(request.name))).some(holds)))
          break;
      }
    } catch (error) {
      await session.close();
      throw error;
    }
    await session.close();
    return undefined;
  }

  async waitAcquire(request: Request, signal?: AbortSignal): Promise<Lease> {
    let interrupted: number | undefined;
    for (;;) {
      signal?.throwIfAborted();
      let session: Session | undefined;
      try {
        session = await this.#open(request.name);
        const record = newRecord(request);
        const query = `SELECT pg_advisory_lock${suffix(request)}(${keyOf(request.name)})`;
        await session.wait(query, comment(request.name, record), signal);
        record.acquired = new Date().toISOString();
        return await this.#settle(session, request, record, signal, interrupted);
      } catch (error) {
        const ended = session?.closed.aborted === true;
        await session?.close();
        signal?.throwIfAborted();
        if (this.#closed) throw error;
        // A server that restarts, or an administrator, may have ended the session of the holder too.
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
   * Waits in the server's queue, and has the lock for no longer than one statement: there is no way to wait without
   * getting it. Who tries to take it just then looks again.
   */
  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    const session = await this.#open(name);
    try {
      await session.wait(`${LOOK}(${keyOf(name)})`, "", signal);
    } finally {
      await session.close();
    }
    signal?.throwIfAborted();
  }

  async status(name: string): Promise<LockStatus> {
    const session = await this.#open("");
    try {
      return describe(name, this.place(name), await this.#locks(session, keyOf(name)));
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
        return describe(name, this.place(name), rows);
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
    const session = await Session.open(this.address, name, this.options.ttl);
    this.#sessions.add(session);
    session.closed.addEventListener("abort", () => this.#sessions.delete(session), { once: true });
    return session;
  }

  /**
   * The lock is this session's. Before it is used: a token, and the certainty that no holder of before is at work.
   * @param interrupted when we last saw that the server may have ended other sessions, on `clock()`
   */
  async #settle(
    session: Session,
    { name, mode }: Request,
    record: HolderRecord,
    signal: AbortSignal | undefined,
    interrupted = Number.NEGATIVE_INFINITY,
  ): Promise<Lease> {
    const { ttl, notice } = this.options;
    // The message makes the transaction's commit wait for the disk: without it a crash could forget the number.
    const [row] = await session.query(
      `SELECT pg_logical_emit_message(true, 'exclusive', ''), pg_current_xact_id()::text AS token, 
         ${MEMORY} AS memory, ${KILLS} AS kills`,
      comment(name, record),
    );
    const token = BigInt(row!.token as string);
    // A session was ended by an administrator while we waited: it may have been the holder's.
    if (row!.kills !== session.kills) interrupted = clock();
    const left = ttl - Math.min(row!.memory as number, clock() - interrupted);
    if (left > 0) {
      notice(
        `${this.address.shown} has ended sessions a moment ago: waiting ${Math.ceil(left / 1000)} s for a holder of before to stop`,
      );
      await pause(left, signal);
    }
    const beat = async () => {
      const [row] = await session.query("SELECT pg_backend_pid() AS pid", comment(name, record, token));
      return row!.pid === session.pid;
    };
    const sent = clock();
    if (!(await beat())) throw pooled(this.address);
    const lease = new TimedLease({
      name,
      place: this.place(name),
      token,
      ttl,
      sent,
      renew: beat,
      async giveBack() {
        await session
          .query(`SELECT pg_advisory_unlock${suffix({ mode })}(${keyOf(name)})`)
          .finally(() => session.close());
      },
      recordCommand(pid) {
        record.command = pid;
        beat().catch(() => {}); // the next renewal tells as much
      },
    });
    session.closed.addEventListener("abort", () => lease.lose(message(session.closed.reason)), {
      once: true,
    });
    if (session.closed.aborted) throw session.closed.reason;
    return lease;
  }

  /** What is held, and waited for, in this database; those who hold it first. */
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

/** How a statement begins that waits until nobody holds a lock, and how often somebody who does is looked past. */
const LOOK = "SELECT pg_advisory_xact_lock";
const LOOKS_MAX = 50;

const suffix = ({ mode }: Pick<Request, "mode">): string => (mode === "shared" ? "_shared" : "");

interface LockRow {
  key: string;
  granted: boolean;
  application: string | null;
  query: string | null;
}

const COMMENT = /^\/\* exclusive (\d*)\n(.*?) \*\/ /s;

/**
 * The record as a comment in front of a statement. ASCII alone, whatever the server's encoding, and without what would
 * end the comment or begin another. If it is too long it does without the label, then without the name.
 */
function comment(name: string, record: HolderRecord, token?: bigint): string {
  const { label: _, ...short } = record;
  for (const content of [{ ...record, name }, { ...short, name }, short]) {
    const text = new TextDecoder().decode(encodeRecord(content));
    const safe = text
      .trimEnd()
      .replace(/[*\x7f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
    if (safe.length <= COMMENT_MAX) return `/* exclusive ${token ?? ""}\n${safe} */ `;
  }
  return "";
}

/** Name and holder, as far as the session lets us see. */
function recordOf({ query }: LockRow): { name?: string | undefined; holder: Holder } {
  const [, token, text] = COMMENT.exec(query ?? "") ?? [];
  if (text === undefined) return { holder: {} };
  const written = parseLockFile(text);
  return { name: written.record.name, holder: { ...holderByRecord(written), token: token || undefined } };
}

/** The name of a lock whose key is that of these sessions. What a session says is checked against the key. */
function nameOf(rows: LockRow[]): string {
  const key = rows[0]!.key;
  const shown = rows[0]!.application!.slice(APPLICATION.length);
  const names = rows.map((row) => recordOf(row).name).concat(shown);
  return names.find((name) => name !== undefined && String(keyOf(name)) === key) ?? `${shown}… (${key})`;
}

function describe(name: string, place: string, rows: LockRow[]): LockStatus {
  const held = rows.filter(({ granted }) => granted);
  if (held.length === 0) return { name, state: "free", lockfile: place };
  const [holder, ...others] = held.map((row) => recordOf(row).holder);
  return {
    name,
    state: "held",
    lockfile: place,
    holder,
    others: others.length > 0 ? others : undefined,
    waiters: rows.length - held.length,
  };
}
