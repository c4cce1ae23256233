/** A connection to PostgreSQL that can hold a lock: its settings, its end, and what it must not be. */
import { type ReservedSQL, SQL } from "bun";
import { printable, StoreError } from "../../errors.ts";
import { within } from "../lease.ts";
import type { Address } from "../store-url.ts";

/** Longest `application_name`, in bytes: `NAMEDATALEN - 1`. */
const APPLICATION_NAME_MAX = 63;
/** What it begins with. The lock's name follows. */
export const APPLICATION = "exclusive ";

const CONNECT_SECONDS = 10;
/** A query that was told to end gets so long to do it before its connection is closed. */
const CANCEL_MS = 1000;

/** SQLSTATEs: PostgreSQL manual, appendix A. */
const QUERY_CANCELED = "57014";
const PROTOCOL_VIOLATION = "08P01";

/**
 * For how long the server remembers who holds what, in milliseconds: it forgets when it starts, and when it recovers
 * from the crash of one of its processes, which sets its statistics back.
 */
export const MEMORY = `(1000 * extract(epoch FROM clock_timestamp() -
  greatest(pg_postmaster_start_time(), (SELECT stats_reset FROM pg_stat_bgwriter))))::float8`;

/**
 * How many sessions of this database an administrator has ended; those whose client has gone are not among them.
 * Kept since version 14.
 */
export const KILLS = `(SELECT to_jsonb(d) ->> 'sessions_killed' FROM pg_stat_database d WHERE datname = current_database())`;

/**
 * Settings of the session. Nothing that a role or a database has as its default may end a wait or a lock. The server
 * notices a client that has vanished, but not before this client counts its lock as lost.
 */
function settings(ttl: number): string {
  const silence = Math.ceil(ttl * 1.25) + 1000;
  const values = {
    statement_timeout: "0",
    lock_timeout: "0",
    idle_session_timeout: "0",
    idle_in_transaction_session_timeout: "0",
    transaction_timeout: "0",
    default_transaction_read_only: "off",
    tcp_user_timeout: String(silence),
    // tcp(7): with a user timeout, that decides when probes without an answer end the connection. The rest within
    // what Linux takes.
    tcp_keepalives_idle: String(Math.min(32_767, Math.max(1, Math.floor(ttl / 2000)))),
    tcp_keepalives_interval: String(Math.min(32_767, Math.max(1, Math.floor(ttl / 4000)))),
    tcp_keepalives_count: "127",
    client_connection_check_interval: String(Math.ceil(ttl / 2)),
  };
  const rows = Object.entries(values).map(([name, value]) => `('${name}', '${value}')`);
  // Only those that this version has. Not every system can watch a connection.
  return `(SELECT count(set_config(s.name, v.value, false)) FROM pg_settings s
    JOIN (VALUES ${rows.join(", ")}, ('synchronous_commit',
      CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END)
    ) AS v (name, value) ON v.name = s.name
    WHERE s.name <> 'client_connection_check_interval' OR version() ~* 'linux')`;
}

type Row = Record<string, unknown>;

/** One connection, which the server knows by its pid. */
export class Session {
  #closing: Promise<void> | undefined;
  pid = 0;
  /** `KILLS` when it began. */
  kills: unknown;

  private constructor(
    private readonly address: Address,
    private readonly sql: SQL,
    private readonly connection: ReservedSQL,
    private readonly ended: AbortController,
  ) {}

  /** Fires with the reason when the connection has ended. */
  get closed(): AbortSignal {
    return this.ended.signal;
  }

  /** @throws {StoreError} when the server cannot be reached, refuses us, or is none that can hold a session's lock */
  static async open(address: Address, name: string, ttl: number): Promise<Session> {
    const mark = crypto.randomUUID();
    const url = new URL(address.url);
    const application = printable(APPLICATION + name).replace(/[^ -~]/g, "?");
    const ended = new AbortController();
    const sql = new SQL({
      url,
      adapter: "postgres",
      // PGDATABASE would take priority over the URL.
      ...(url.pathname.length > 1 && { database: decodeURIComponent(url.pathname.slice(1)) }),
      max: 1,
      idleTimeout: 0,
      maxLifetime: 0,
      connectionTimeout: CONNECT_SECONDS,
      prepare: false,
      connection: {
        application_name: application.slice(0, APPLICATION_NAME_MAX),
        // PostgreSQL keeps any setting whose name has a dot; a pooler refuses it, or drops it.
        "exclusive.session": mark,
      },
      onclose: (error) => ended.abort(failure(error, address)),
    });
    try {
      const session = new Session(address, sql, await sql.reserve(), ended);
      const [row] = await session.query(
        `SELECT pg_backend_pid() AS pid, current_setting('exclusive.session', true) AS mark,
           pg_is_in_recovery() AS standby, ${KILLS} AS kills, ${settings(ttl)} AS settings`,
      );
      if (row!.mark !== mark) throw pooled(address);
      if (row!.standby === true)
        throw new StoreError(`${address.shown} is a read-only standby: locks need the primary server`);
      session.pid = row!.pid as number;
      session.kills = row!.kills;
      return session;
    } catch (error) {
      await sql.close({ timeout: 0 }).catch(() => {});
      throw failure(error, address);
    }
  }

  /** @throws {StoreError} */
  async query(text: string, comment = ""): Promise<Row[]> {
    try {
      return (await this.connection.unsafe(comment + text)) as Row[];
    } catch (error) {
      throw failure(error, this.address);
    }
  }

  /**
   * A statement that waits in the server.
   * @param signal ends it: the promise is rejected with its reason once nothing is left waiting
   */
  async wait(text: string, comment: string, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const query = this.connection.unsafe(comment + text);
    const running = Promise.resolve(query.execute());
    const tooLate = new AbortController();
    const cancel = () => {
      query.cancel();
      setTimeout(() => tooLate.abort(signal!.reason), CANCEL_MS).unref();
    };
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      await within(tooLate.signal, running);
    } catch (error) {
      const canceled = (error as SQL.PostgresError).errno === QUERY_CANCELED;
      if (!signal?.aborted && canceled)
        throw new StoreError(
          `${this.address.shown}: somebody has canceled the statement that waits for the lock`,
        );
      throw failure(error, this.address);
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
    signal?.throwIfAborted(); // who asked has gone; the lock ends with the session
  }

  /** Ends the session, and with it its lock. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.ended.abort(failure(new Error("closed"), this.address));
      await this.sql.close({ timeout: 0 }).catch(() => {});
    })();
    return this.#closing;
  }
}

export const message = (error: unknown): string => (error instanceof Error ? error.message : String(error));

export function pooled(address: Address): StoreError {
  return new StoreError(
    `${address.shown} is a connection pooler: it moves sessions, and a lock that belongs to one would be shared or lost. Give the URL of PostgreSQL itself`,
  );
}

/** What the client says, without the URL's secrets, and with what to do. */
function failure(error: unknown, address: Address): Error {
  if (error instanceof StoreError) return error;
  const { errno, message: text } = error as SQL.PostgresError;
  if (errno === PROTOCOL_VIOLATION && /startup parameter/.test(text)) return pooled(address);
  return new StoreError(`${address.shown}: ${address.hide(text)}`, { cause: error });
}
