/**
 * Locks in MySQL and MariaDB: `GET_LOCK`, each on its own connection.
 *
 * The session is the lock: it ends with the connection, and in no other way (MySQL manual, Locking Functions). A client
 * cannot see that the server has given up its connection. So each lock also has a deadline here: a heartbeat that is
 * not answered within the lease means that the lock is lost. The server ends the session of a client that is silent for
 * longer than that.
 *
 * A row in a table has the fencing token and the holder's record. An orderly release deletes the row before it frees the
 * lock. So a row without a session shows that a session has ended in another way.
 */
import { acquiredNow, type HolderRecord, newRecord } from "../../holder.ts";
import { seatName, secondHoldName } from "../../name.ts";
import { clock } from "../../os/clock.ts";
import { type EngineOptions, lockStatus } from "../engine.ts";
import { pause, TimedLease } from "../lease.ts";
import { delayed, Outage } from "../outage.ts";
import { placeByToken } from "../place.ts";
import type { LockStatus, Place, Request, Store } from "../store.ts";
import type { StoreUrl } from "../store-url.ts";
import { sweep, waitOutEarlierHolders } from "./earlier-holders.ts";
import {
  CREATE_TABLE,
  holderIn,
  keyOf,
  type LockRow,
  NEWEST_FIRST,
  nameIn,
  ROWS,
  recordLiteral,
  refuseShared,
  rowOfOwner,
  TABLE,
} from "./lock-table.ts";
import { rowsIn, waitersIn } from "./look.ts";
import { checkUrl, isMissingTable, message, pooled, Session } from "./session.ts";

/**
 * How long one statement waits in the server's queue, in seconds. Its answer shows that the server is alive; but the
 * next statement begins at the end of the queue.
 */
const SLICE_SECONDS = 10;
/** How often, and after which pause, `tryAcquire` asks again for a lock that is held without a row. */
const RETRIES = 10;
const RETRY_MS = 10;
/** Rows of vanished holders are looked for at each token that is a multiple of this. */
const SWEEP_TOKENS = 100n;

/** Opens the store. It connects with the first request. */
export async function open(url: StoreUrl, options: EngineOptions): Promise<Store<TimedLease>> {
  return new MysqlStore(url, options);
}

class MysqlStore implements Store<TimedLease> {
  readonly #sessions = new Set<Session>();
  readonly #leases = new Set<TimedLease>();
  readonly #sessionOf = new WeakMap<TimedLease, Session>();
  #closed = false;

  constructor(
    private readonly url: StoreUrl,
    private readonly options: EngineOptions,
  ) {
    checkUrl(url);
  }

  location(_name: string): string {
    return this.url.redacted;
  }

  async tryAcquire(request: Request, given?: AbortSignal): Promise<TimedLease | undefined> {
    refuseShared(request);
    const signal = given?.aborted ? undefined : given;
    let session: Session | undefined;
    try {
      session = await this.#open(signal);
      const key = keyOf(session.database, request.name);
      // `waitFree`, or a waiter that has just gone, may hold the lock for a moment. Neither writes a row.
      for (let tries = 0; ; tries++) {
        const record = newRecord(request);
        const [got, rows] = await this.#getLock(session, request.name, 0, signal);
        if (got) return await this.#confirmOwnership(session, request.name, record, rows, given);
        const ofLock = rows.filter((row) => row.key === key);
        if (rowOfOwner(ofLock) !== undefined || tries >= RETRIES) break;
        await pause(RETRY_MS);
      }
    } catch (error) {
      await session?.close();
      throw signal?.aborted && error === signal.reason ? delayed(signal, this.#silent) : error;
    }
    await session.close();
    return undefined;
  }

  async waitAcquire(request: Request, signal?: AbortSignal): Promise<TimedLease> {
    refuseShared(request);
    return this.#throughOutages(signal, async (session, seen) => {
      for (;;) {
        const [got, rows] = await this.#getLock(session, request.name, SLICE_SECONDS, signal);
        seen(!got);
        if (got) return await this.#confirmOwnership(session, request.name, newRecord(request), rows, signal);
      }
    });
  }

  /**
   * Does something that waits, with a session, and again with another one as long as the server is away.
   * @param wait reports whether it has seen that the lock is held
   */
  async #throughOutages<T>(
    signal: AbortSignal | undefined,
    wait: (session: Session, seen: (held: boolean) => void) => Promise<T>,
  ): Promise<T> {
    const outage = new Outage(this.options.notice);
    for (;;) {
      signal?.throwIfAborted();
      let session: Session | undefined;
      let held = false;
      try {
        session = await this.#open(signal);
        return await wait(session, (isHeld) => {
          held = isHeld;
          outage.over();
        });
      } catch (error) {
        await session?.close();
        if (signal?.aborted && error === signal.reason) throw held ? error : delayed(signal, this.#silent);
        if (this.#closed) throw error;
        await outage.wait(error, signal);
      }
    }
  }

  /** Each place is a lock of its own: MySQL has no shared ones. */
  async takePlace(name: string, _started: number, signal?: AbortSignal): Promise<Place> {
    const seat = `${seatName(name)}\0`;
    const own: Request = { name: seat + crypto.randomUUID(), mode: "exclusive" };
    const lease = await this.waitAcquire(own, signal);
    const session = this.#sessionOf.get(lease)!;
    const isPlace = (row: LockRow) => row.owner === row.connection && nameIn(row)?.startsWith(seat);
    return placeByToken(lease, async () => (await rowsIn(session)).filter(isPlace).map(holderIn));
  }

  /**
   * Waits in the server's queue. MySQL cannot wait without acquiring, so this holds the lock for the length of one
   * statement. A `tryAcquire` that fails in that moment retries.
   */
  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    await this.#throughOutages(signal, async (session, seen) => {
      const key = keyOf(session.database, name);
      const release = `DO RELEASE_LOCK('${key}')`;
      while (!(await session.getLock(key, SLICE_SECONDS, release, signal))[0]) seen(true);
      await session.close();
    });
  }

  async status(name: string): Promise<LockStatus> {
    const session = await this.#open();
    try {
      const key = keyOf(session.database, name);
      const [row] = await session.query(`SELECT IS_USED_LOCK('${key}') AS owner`);
      if (row!.owner === null) return lockStatus(name, this.location(name), []);
      const written = rowOfOwner(await rowsIn(session, `WHERE lock_key = '${key}'`));
      const holder = written === undefined ? {} : holderIn(written);
      return lockStatus(name, this.location(name), [holder], (await waitersIn(session))?.get(key) ?? 0);
    } finally {
      await session.close();
    }
  }

  async list(): Promise<LockStatus[]> {
    const session = await this.#open();
    try {
      const byKey = Map.groupBy(await rowsIn(session), ({ key }) => key);
      const waiters = await waitersIn(session);
      const all: LockStatus[] = [];
      for (const [key, rows] of byKey) {
        const row = rowOfOwner(rows);
        const name = row && nameIn(row);
        if (row === undefined || name === undefined || keyOf(session.database, name) !== key) continue;
        all.push(lockStatus(name, this.location(name), [holderIn(row)], waiters && (waiters.get(key) ?? 0)));
      }
      return all;
    } finally {
      await session.close();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(Array.from(this.#leases, (lease) => lease.release()));
    await Promise.all(Array.from(this.#sessions, (session) => session.close()));
  }

  async #open(signal?: AbortSignal): Promise<Session> {
    const session = await Session.open(this.url, this.options.ttl, signal);
    this.#sessions.add(session);
    session.closed.addEventListener("abort", () => this.#sessions.delete(session), { once: true });
    if (this.#closed) await session.close();
    return session;
  }

  get #silent(): string {
    return `${this.url.redacted}: no answer in time`;
  }

  /** Asks for a lock. Returns whether it was got, and the rows of both holds, with that of the server. */
  async #getLock(
    session: Session,
    name: string,
    wait: number,
    signal?: AbortSignal,
  ): Promise<[boolean, LockRow[]]> {
    const [key, second] = [name, secondHoldName(name)].map((name) => keyOf(session.database, name));
    const next = `${ROWS} WHERE lock_key IN ('', '${key}', '${second}') ${NEWEST_FIRST}`;
    const ask = () => session.getLock<LockRow>(key!, wait, next, signal);
    return ask().catch(async (error: unknown) => {
      if (!isMissingTable(error)) throw error;
      await session.query(CREATE_TABLE, signal);
      return ask();
    });
  }

  /**
   * Makes a lease of the lock that this session has taken: waits out an earlier holder that may still be running, and
   * obtains a fencing token.
   * @param rows of both holds and of the server, as they were when the lock was taken
   */
  async #confirmOwnership(
    session: Session,
    name: string,
    record: HolderRecord,
    rows: LockRow[],
    signal: AbortSignal | undefined,
  ): Promise<TimedLease> {
    const { ttl, notice } = this.options;
    const key = keyOf(session.database, name);
    const over = await waitOutEarlierHolders(
      session,
      name,
      rows,
      { ttl, location: this.url.redacted, notice },
      signal,
    );
    Object.assign(record, acquiredNow());
    const alive = `SELECT IS_USED_LOCK('${key}') = CONNECTION_ID() AND CONNECTION_ID() = ${session.id}
      AND @@global.read_only = 0 AS mine`;
    const sent = clock();
    const results = await session.batch([
      ...(over.length === 0 ? [] : [`DELETE FROM ${TABLE} WHERE token IN (${over.join()})`]),
      `INSERT INTO ${TABLE} (lock_key, connection_id, record)
         VALUES ('${key}', ${session.id}, ${recordLiteral(name, record)})`,
      alive,
    ]);
    if (results.at(-1)![0]!.mine !== 1) throw pooled(this.url);
    const token = BigInt(results.at(-2)!.lastInsertRowid!);
    if (token % SWEEP_TOKENS === 0n) await sweep(session).catch(() => {});
    let published = true;
    const publish = async () => {
      published = false;
      await session.query(
        `UPDATE ${TABLE} SET record = ${recordLiteral(name, record)} WHERE token = ${token}`,
      );
      published = true;
    };
    const lease: TimedLease = new TimedLease({
      name,
      location: this.location(name),
      token,
      ttl,
      sent,
      async renew() {
        const [row] = await session.query(alive);
        if (!published) publish().catch(() => {});
        return row!.mine === 1;
      },
      release: async () => {
        this.#leases.delete(lease);
        // The row first: after the other order, the next holder would find it.
        const statements = [`DELETE FROM ${TABLE} WHERE token = ${token}`, `DO RELEASE_LOCK('${key}')`];
        await session.batch(statements).finally(() => session.close());
      },
      recordCommand(pid, until) {
        Object.assign(record, { command: pid, until });
        publish().catch(() => {}); // the next renewal tries again
      },
    });
    this.#leases.add(lease);
    this.#sessionOf.set(lease, session);
    const ended = () => {
      this.#leases.delete(lease);
      lease.lose(message(session.closed.reason));
    };
    session.closed.addEventListener("abort", ended, { once: true });
    if (session.closed.aborted) throw session.closed.reason;
    return lease;
  }
}
