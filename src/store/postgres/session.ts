/** A connection to PostgreSQL that can hold a lock: its settings, its end, and the servers that it refuses. */
import { type ReservedSQL, SQL } from "bun";
import { printable, StoreError } from "../../errors.ts";
import { clock } from "../../os/clock.ts";
import { explained } from "../socket.ts";
import type { StoreUrl } from "../store-url.ts";
import { limited, within } from "../time-limit.ts";

/** Longest `application_name`, in bytes: `NAMEDATALEN - 1`. */
const APPLICATION_NAME_MAX = 63;
/** The prefix of our `application_name`s. The lock's name follows. */
export const APPLICATION = "exclusive ";

/** Limits of time, in milliseconds: for a connection to one host, and for an answer. */
const CONNECT_MS = 10_000;
const CONNECT_ONE_OF_MANY_MS = 3000;
const ANSWER_MS = 10_000;
/** A canceled query that has not ended after this time has its connection closed. */
const CANCEL_MS = 1000;
/**
 * How long one statement waits for a lock, in milliseconds. A statement holds a snapshot, and `CREATE INDEX CONCURRENTLY`
 * and VACUUM wait for each snapshot. It is less than `deadlock_timeout`, so the server logs no waits.
 */
export const SLICE_MS = 750;

/** SQLSTATEs: PostgreSQL manual, appendix A. */
const PROTOCOL_VIOLATION = "08P01";

/**
 * An expression: milliseconds since the server last started or recovered from a crash. It has forgotten all earlier
 * locks. The crash of one server process ends every session and resets all statistics, so their reset times show it;
 * an administrator resets them one by one.
 */
export const REMEMBERS_SINCE = `(1000 * extract(epoch FROM clock_timestamp() - greatest(pg_postmaster_start_time(), least(
  (SELECT stats_reset FROM pg_stat_bgwriter), (SELECT stats_reset FROM pg_stat_archiver)))))::float8`;

/** An expression: was the server in recovery since it was started, from a crash or as a standby? */
export const RECOVERED = "pg_last_wal_replay_lsn() IS NOT NULL";

/**
 * A query: milliseconds since a server that was in recovery has certainly been a primary; null for one that was never
 * promoted. A promotion begins a new timeline. When it was is not recorded where every user can read it, but a
 * checkpoint of the same timeline is younger. Its time is in whole seconds.
 */
export const PRIMARY_SINCE = `SELECT CASE WHEN now.timeline = 1 THEN NULL
  WHEN now.timeline <> timeline_id THEN 0
  ELSE 1000 * extract(epoch FROM clock_timestamp() - checkpoint_time) - 1000 END::float8 AS since
  FROM pg_control_checkpoint(),
    (SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int AS timeline) AS now`;

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
    lock_timeout: String(SLICE_MS),
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

export type Row = Record<string, unknown>;

/** One connection, and the server process at its other end. */
export class Session {
  #closing: Promise<void> | undefined;
  /** The pid of the server process. */
  pid = 0;
  /** When it was opened, on `clock()`. */
  readonly opened = clock();
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
   * Connects to one host.
   * @param host the URL with this host alone
   * @param name of a lock, for `application_name`
   * @param signal gives up
   * @throws {StoreError} when the server is unreachable, refuses the connection, or cannot hold a session's lock
   */
  static async open(
    url: StoreUrl,
    host: string,
    { name, ttl, oneOfMany }: { name: string; ttl: number; oneOfMany: boolean },
    signal?: AbortSignal,
  ): Promise<Session> {
    const mark = crypto.randomUUID();
    const parsed = new URL(host);
    const limit = oneOfMany ? CONNECT_ONE_OF_MANY_MS : CONNECT_MS;
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
      connectionTimeout: Math.ceil(limit / 1000),
      prepare: false,
      connection: {
        application_name: application.slice(0, APPLICATION_NAME_MAX),
        // PostgreSQL keeps any setting whose name has a dot. A pooler refuses it or drops it.
        "exclusive.session": mark,
      },
      onclose: (error) => ended.abort(failure(error, url)),
    });
    try {
      const session = new Session(url, sql, await limited(limit, () => sql.reserve(), signal), ended);
      const [row] = await session.query(
        `SELECT pg_backend_pid() AS pid, current_setting('exclusive.session', true) AS mark,
           pg_is_in_recovery() AS standby, ${SESSIONS_KILLED} AS killed, ${settings(ttl)} AS settings`,
        "",
        signal,
      );
      if (row!.mark !== mark) throw pooled(url);
      if (row!.standby === true)
        throw new StoreError(`${url.redacted} is a read-only standby: locks need the primary server`, {
          temporary: oneOfMany,
        });
      session.pid = row!.pid as number;
      session.killed = row!.killed;
      return session;
    } catch (error) {
      sql.close({ timeout: 0 }).catch(() => {}); // which may not answer either
      const cause = await explained(error, parsed, 5432);
      throw signal?.aborted ? signal.reason : failure(cause, url);
    }
  }

  /**
   * Runs a statement, behind the comment.
   * @param signal gives up. The session is then of no more use.
   * @throws {StoreError} when it fails, or is not answered
   */
  async query(text: string, comment = "", signal?: AbortSignal): Promise<Row[]> {
    try {
      return await limited(
        ANSWER_MS,
        async () => (await this.connection.unsafe(comment + text)) as Row[],
        signal,
      );
    } catch (error) {
      throw signal?.aborted ? signal.reason : failure(error, this.url);
    }
  }

  /**
   * Waits for an advisory lock in the server's queue, for a slice of time.
   * @param take the call of the function that takes it
   * @param columns of a query that follows
   * @param signal cancels it: the promise is rejected with the signal's reason, after the statement has ended
   * @returns the row of that query, with `got`: has it taken the lock?
   * @throws {StoreError} when it fails
   */
  async wait(take: string, comment: string, columns: string, signal?: AbortSignal): Promise<Row> {
    signal?.throwIfAborted();
    // An error that is caught is not logged by the server.
    const body = `BEGIN PERFORM ${take}; PERFORM set_config('exclusive.got', 'yes', true);
      EXCEPTION WHEN lock_not_available THEN NULL; END`;
    const query = this.connection.unsafe(
      `${comment}DO $$ ${body} $$; SELECT current_setting('exclusive.got', true) = 'yes' AS got, ${columns}`,
    );
    const running = Promise.resolve(query.execute());
    const tooLate = new AbortController();
    const cancel = () => {
      query.cancel();
      setTimeout(() => tooLate.abort(signal!.reason), CANCEL_MS);
    };
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      const results = await limited(SLICE_MS + ANSWER_MS, () => within(tooLate.signal, running));
      signal?.throwIfAborted(); // the statement was faster; a lock that it took ends with the session
      return (results as Row[][])[1]![0]!;
    } catch (error) {
      throw signal?.aborted ? signal.reason : failure(error, this.url);
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** Ends the session, and so its lock. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.ended.abort(new StoreError(`${this.url.redacted}: closed`, { temporary: true }));
      await limited(CANCEL_MS, () => this.sql.close({ timeout: 0 })).catch(() => {});
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

/** SQLSTATEs of a server that may answer soon, and the codes of Bun's client: PostgreSQL manual, appendix A. */
const TEMPORARY = /^(08|53|57|25006|40)|CONNECTION|TIMEOUT|CLOSED/;

/** The client's error as a `StoreError`, without the URL's secrets. */
function failure(error: unknown, url: StoreUrl): StoreError {
  if (error instanceof StoreError) return error;
  const { errno, code, name, message: text } = error as SQL.PostgresError;
  if (errno === PROTOCOL_VIOLATION && /startup parameter/.test(text)) return pooled(url);
  const temporary = name === "TimeoutError" || TEMPORARY.test(errno ?? code);
  return new StoreError(`${url.redacted}: ${url.redact(text)}`, { cause: error, temporary });
}
