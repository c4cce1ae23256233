/** A connection to PostgreSQL that can hold a lock: its settings, its end, and the servers that it refuses. */
import { type ReservedSQL, SQL } from "bun";
import { printable, StoreError } from "../../errors.ts";
import { within } from "../lease.ts";
import type { StoreUrl } from "../store-url.ts";

/** Longest `application_name`, in bytes: `NAMEDATALEN - 1`. */
const APPLICATION_NAME_MAX = 63;
/** The prefix of our `application_name`s. The lock's name follows. */
export const APPLICATION = "exclusive ";

const CONNECT_SECONDS = 10;
/** A canceled query that has not ended after this time has its connection closed. */
const CANCEL_MS = 1000;

/** SQLSTATEs: PostgreSQL manual, appendix A. */
const QUERY_CANCELED = "57014";
const PROTOCOL_VIOLATION = "08P01";

/**
 * An expression: milliseconds since the server last started or recovered from a crash. It has forgotten all earlier
 * locks. The crash of one server process ends every session and resets the statistics, so their reset time shows it.
 */
export const REMEMBERS_SINCE = `(1000 * extract(epoch FROM clock_timestamp() -
  greatest(pg_postmaster_start_time(), (SELECT stats_reset FROM pg_stat_bgwriter))))::float8`;

/**
 * An expression: the number of this database's sessions that an administrator has ended. Sessions whose client went
 * away do not count. Null before PostgreSQL 14.
 */
export const SESSIONS_KILLED = `(SELECT to_jsonb(d) ->> 'sessions_killed' FROM pg_stat_database d WHERE datname = current_database())`;

/**
 * A query that makes the session's settings. They override the defaults of a role or database that would end a wait or
 * a lock. The server notices a vanished client, but not before that client counts its lock as lost.
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
    // With a user timeout, that one decides when unanswered keepalives end the connection; see tcp(7). The other values
    // stay within the limits of Linux.
    tcp_keepalives_idle: String(Math.min(32_767, Math.max(1, Math.floor(ttl / 2000)))),
    tcp_keepalives_interval: String(Math.min(32_767, Math.max(1, Math.floor(ttl / 4000)))),
    tcp_keepalives_count: "127",
    client_connection_check_interval: String(Math.ceil(ttl / 2)),
  };
  const rows = Object.entries(values).map(([name, value]) => `('${name}', '${value}')`);
  // Only settings that this version has. client_connection_check_interval works only on some systems.
  return `(SELECT count(set_config(s.name, v.value, false)) FROM pg_settings s
    JOIN (VALUES ${rows.join(", ")}, ('synchronous_commit',
      CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END)
    ) AS v (name, value) ON v.name = s.name
    WHERE s.name <> 'client_connection_check_interval' OR version() ~* 'linux')`;
}

type Row = Record<string, unknown>;

/** One connection, and the server process at its other end. */
export class Session {
  #closing: Promise<void> | undefined;
  /** The pid of the server process. */
  pid = 0;
  /** `SESSIONS_KILLED` at the start of this session. */
  killed: unknown;

  private constructor(
    private readonly url: StoreUrl,
    private readonly sql: SQL,
    private readonly connection: ReservedSQL,
    private readonly ended: AbortController,
  ) {}

  /** Fires when the connection has ended. Its reason is a `StoreError`. */
  get closed(): AbortSignal {
    return this.ended.signal;
  }

  /**
   * Connects.
   * @param name of a lock, for `application_name`
   * @throws {StoreError} when the server is unreachable, refuses the connection, or cannot hold a session's lock
   */
  static async open(url: StoreUrl, name: string, ttl: number): Promise<Session> {
    const mark = crypto.randomUUID();
    const parsed = new URL(url.url);
    const application = printable(APPLICATION + name).replace(/[^ -~]/g, "?");
    const ended = new AbortController();
    const sql = new SQL({
      url: parsed,
      adapter: "postgres",
      // Otherwise PGDATABASE would take priority over the URL.
      ...(parsed.pathname.length > 1 && { database: decodeURIComponent(parsed.pathname.slice(1)) }),
      max: 1,
      idleTimeout: 0,
      maxLifetime: 0,
      connectionTimeout: CONNECT_SECONDS,
      prepare: false,
      connection: {
        application_name: application.slice(0, APPLICATION_NAME_MAX),
        // PostgreSQL keeps any setting whose name has a dot. A pooler refuses it or drops it.
        "exclusive.session": mark,
      },
      onclose: (error) => ended.abort(failure(error, url)),
    });
    try {
      const session = new Session(url, sql, await sql.reserve(), ended);
      const [row] = await session.query(
        `SELECT pg_backend_pid() AS pid, current_setting('exclusive.session', true) AS mark,
           pg_is_in_recovery() AS standby, ${SESSIONS_KILLED} AS killed, ${settings(ttl)} AS settings`,
      );
      if (row!.mark !== mark) throw pooled(url);
      if (row!.standby === true)
        throw new StoreError(`${url.redacted} is a read-only standby: locks need the primary server`);
      session.pid = row!.pid as number;
      session.killed = row!.killed;
      return session;
    } catch (error) {
      await sql.close({ timeout: 0 }).catch(() => {});
      throw failure(error, url);
    }
  }

  /**
   * Runs a statement, behind the comment.
   * @throws {StoreError} when it fails
   */
  async query(text: string, comment = ""): Promise<Row[]> {
    try {
      return (await this.connection.unsafe(comment + text)) as Row[];
    } catch (error) {
      throw failure(error, this.url);
    }
  }

  /**
   * Runs a statement that waits in the server.
   * @param signal cancels it: the promise is rejected with the signal's reason, after the statement has ended
   * @throws {StoreError} when it fails
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
          `${this.url.redacted}: somebody has canceled the statement that waits for the lock`,
        );
      throw failure(error, this.url);
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
    signal?.throwIfAborted(); // the statement was faster; a lock that it took ends with the session
  }

  /** Ends the session, and so its lock. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.ended.abort(failure(new Error("closed"), this.url));
      await this.sql.close({ timeout: 0 }).catch(() => {});
    })();
    return this.#closing;
  }
}

/** The message of anything that was thrown. */
export const message = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** The error for a connection pooler in place of a server. */
export function pooled(url: StoreUrl): StoreError {
  return new StoreError(
    `${url.redacted} is a connection pooler: it moves sessions, and a lock that belongs to one would be shared or lost. Give the URL of PostgreSQL itself`,
  );
}

/** The client's error as a `StoreError`, without the URL's secrets. */
function failure(error: unknown, url: StoreUrl): Error {
  if (error instanceof StoreError) return error;
  const { errno, message: text } = error as SQL.PostgresError;
  if (errno === PROTOCOL_VIOLATION && /startup parameter/.test(text)) return pooled(url);
  return new StoreError(`${url.redacted}: ${url.redact(text)}`, { cause: error });
}
