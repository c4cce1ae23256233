/** A connection to MySQL or MariaDB that can hold a lock: its settings, its end, and the servers that it refuses. */
import { type ReservedSQL, SQL } from "bun";
import { StoreError, WrongArgument } from "../../errors.ts";
import { clock } from "../../os/clock.ts";
import { explained } from "../socket.ts";
import type { StoreUrl } from "../store-url.ts";
import { limited } from "../time-limit.ts";
import { CREATE_TABLE, TABLE } from "./lock-table.ts";

const CONNECT_MS = 10_000;
/** The end of a connection is not waited for any longer than this. */
const CLOSE_MS = 1000;
/** The time limit of an answer, in milliseconds, or one lease if that is longer. A session that exceeds it is closed. */
const ANSWER_MS = 10_000;

/** Error numbers: MySQL Error Message Reference, MariaDB Error Code Reference. */
const NO_SUCH_TABLE = 1146;
const TABLE_ACCESS_DENIED = 1142;
/**
 * Too many connections (1040, 1203, 1226), shutdown (1053, 1077, 1079), lock wait timeout and deadlock (1205, 1213), an
 * interrupted statement (1317), a killed connection (1927, 3168, 3169).
 */
const TRANSIENT = [1040, 1053, 1077, 1079, 1203, 1205, 1213, 1226, 1317, 1927, 3168, 3169];

/** Versions whose token counter survives a restart. */
const OLDEST = { MySQL: "8.0.0", MariaDB: "10.2.4" };

/** The server's time limits are in whole seconds. */
const seconds = (milliseconds: number): number => Math.max(1, Math.ceil(milliseconds / 1000));

/** How long the server keeps the lock of a silent client, in seconds: longer than that client counts it as its own. */
const silenceOf = (ttl: number): number => seconds(ttl * 1.25) + 1;

/**
 * Statements that make the session's settings. They override defaults that would end a wait or a lock, or refuse a
 * write. The table is waited for only briefly: a backup may have locked it, and renewals use the same session.
 */
const settings = (ttl: number): string[] => [
  `SET SESSION autocommit = 1, sql_mode = '', sql_safe_updates = 0, wait_timeout = ${silenceOf(ttl)},
     lock_wait_timeout = ${seconds(ttl / 6)}, innodb_lock_wait_timeout = ${seconds(ttl / 6)}
     /*M!100101 , max_statement_time = 0 */ /*!80000 , max_execution_time = 0 */`,
  "SET SESSION TRANSACTION READ WRITE",
];

const VARIABLES = `SHOW VARIABLES WHERE Variable_name IN ('version', 'read_only', 'super_read_only',
  'innodb_read_only', 'wsrep_on', 'wsrep_provider', 'group_replication_group_name',
  'group_replication_single_primary_mode', 'hostname', 'port', 'server_id', 'server_uuid', 'server_uid')`;

export type Row = Record<string, unknown>;
/** The rows of a statement, and what it inserted. */
export type Result = Row[] & { lastInsertRowid?: number | bigint };

/** One connection. */
export class Session {
  #closing: Promise<void> | undefined;
  /** The server's number for this connection. */
  id = 0;
  /** The database, as the server names it. */
  database = "";
  /** Identifies the server, so that a promoted replica is told from its primary. */
  server = "";
  /** When the server started, on `clock()`. It has forgotten all earlier locks. */
  started = 0;
  #user = "";

  private constructor(
    private readonly url: StoreUrl,
    private readonly ttl: number,
    private readonly sql: SQL,
    private readonly ended: AbortController,
    private readonly connection: ReservedSQL,
  ) {}

  /** Fires when the connection has ended. Its reason is a `StoreError`. */
  get closed(): AbortSignal {
    return this.ended.signal;
  }

  /**
   * Connects.
   * @param signal gives up: the promise is rejected with the signal's reason
   * @throws {StoreError} when the server is unreachable, refuses the connection, or cannot hold a session's lock
   */
  static async open(url: StoreUrl, ttl: number, signal?: AbortSignal): Promise<Session> {
    const parsed = new URL(url.url.replace(/^mariadb:/i, "mysql:"));
    const ended = new AbortController();
    const sql = new SQL({
      url: parsed,
      adapter: "mysql",
      // Otherwise the environment's variables would take priority over the URL.
      database: databaseOf(parsed),
      max: 1,
      idleTimeout: 0,
      maxLifetime: 0,
      connectionTimeout: CONNECT_MS / 1000,
      onclose: (error) => ended.abort(failure(error, url)),
    });
    try {
      const connection = await limited(CONNECT_MS, () => sql.reserve(), signal);
      const session = new Session(url, ttl, sql, ended, connection);
      await session.#prepare(signal);
      return session;
    } catch (error) {
      sql.close({ timeout: 0 }).catch(() => {});
      const cause = await explained(error, parsed, 3306);
      signal?.throwIfAborted();
      throw failure(cause, url);
    }
  }

  /** Makes the settings, and checks that this server can hold a session's lock. */
  async #prepare(signal: AbortSignal | undefined): Promise<void> {
    const asked = clock();
    const [variables, status, who] = (
      await this.batch(
        [
          ...settings(this.ttl),
          VARIABLES,
          "SHOW GLOBAL STATUS LIKE 'Uptime'",
          `SELECT CONNECTION_ID() AS id, CURRENT_USER() AS user,
             IF(@@lower_case_table_names, LOWER(DATABASE()), DATABASE()) AS name`,
        ],
        signal,
      )
    ).slice(-3) as [Row[], Row[], Row[]];
    // The server's own answers are complete.
    if (variables.length === 0 || status.length === 0) throw pooled(this.url);
    const values = new Map(variables.map((row) => [String(row.Variable_name), String(row.Value)]));
    const refusal = refusalOf(values);
    if (refusal !== undefined) throw new StoreError(`${this.url.redacted} ${refusal}`);
    this.id = who[0]!.id as number;
    this.#user = who[0]!.user as string;
    this.database = who[0]!.name as string;
    // The server subtracts whole seconds, so the difference may be one too many.
    this.started = asked - 1000 * (Number(status[0]!.Value) - 1);
    this.server = ["hostname", "port", "server_id", "server_uuid", "server_uid"]
      .map((name) => values.get(name) ?? "")
      .join(" ");
  }

  /**
   * Asks for a lock, and runs another statement.
   * @param wait in the server's queue, in whole seconds
   * @param signal gives up: the promise is rejected with the signal's reason, and the session must be closed
   * @returns whether the session has the lock, and the rows of the other statement
   * @throws {StoreError} when that fails, or something between client and server moves sessions
   */
  async getLock<T = Row>(
    key: string,
    wait: number,
    next: string,
    signal?: AbortSignal,
  ): Promise<[got: boolean, rows: T[]]> {
    const query = `SELECT GET_LOCK('${key}', ${wait}) AS got, CONNECTION_ID() AS id, @@wait_timeout AS silence`;
    const [[row], rows] = (await this.batch([query, next], signal, wait * 1000)) as [Row[], Row[]];
    if (row!.id !== this.id || row!.silence !== silenceOf(this.ttl)) throw pooled(this.url);
    if (row!.got === null)
      throw failure(
        Object.assign(new Error("the wait for the lock was interrupted"), { errno: 1317 }),
        this.url,
      );
    return [row!.got === 1, rows as T[]];
  }

  /**
   * Runs a statement.
   * @throws {StoreError} when it fails, or is not answered in time
   */
  async query(text: string, signal?: AbortSignal): Promise<Result> {
    return (await this.#run(text, 0, signal)) as Result;
  }

  /**
   * Runs at least two statements with one request, up to the first that fails.
   * @param extra time for the answer, in milliseconds
   * @throws {StoreError} when one fails, or they are not answered in time
   */
  async batch(statements: string[], signal?: AbortSignal, extra = 0): Promise<Result[]> {
    return (await this.#run(statements.join(";\n"), extra, signal)) as unknown as Result[];
  }

  async #run(text: string, extra: number, signal: AbortSignal | undefined): Promise<unknown> {
    signal?.throwIfAborted();
    const limit = Math.max(ANSWER_MS, this.ttl) + extra;
    try {
      return await limited(limit, async () => this.connection.unsafe(text), signal);
    } catch (error) {
      signal?.throwIfAborted();
      if ((error as Error).name === "TimeoutError") void this.close();
      throw this.#failure(error);
    }
  }

  /** The error of a statement. A right that is missing is named with the statements that give it. */
  #failure(error: unknown): Error {
    const { errno } = error as SQL.MySQLError;
    if (errno !== TABLE_ACCESS_DENIED) return failure(error, this.url);
    const [user, host] = this.#user.split(/@(?=[^@]*$)/).map((part) => `'${part.replaceAll("'", "''")}'`);
    const table = `\`${this.database.replaceAll("`", "``")}\`.${TABLE}`;
    const statements = [
      CREATE_TABLE.replace(TABLE, table).replace(/\s+/g, " "),
      `GRANT SELECT, INSERT, UPDATE, DELETE ON ${table} TO ${user}@${host}`,
    ];
    const { message } = failure(error, this.url);
    return new StoreError(`${message}. Let an administrator run once: ${statements.join("; ")}`, {
      cause: error,
    });
  }

  /** Ends the session, and so its lock. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.ended.abort(failure(new Error("closed"), this.url));
      await limited(CLOSE_MS, () => this.sql.close({ timeout: 0 })).catch(() => {});
    })();
    return this.#closing;
  }
}

/** @throws {TypeError} for a URL that is malformed, or names no database */
export function checkUrl({ url, redacted, scheme }: StoreUrl): void {
  if (!URL.canParse(url)) throw new WrongArgument(`not a URL: ${redacted}`);
  if (databaseOf(new URL(url)) === undefined)
    throw new WrongArgument(`${redacted} has no database: ${scheme}://USER:PASSWORD@HOST/DATABASE`);
}

/** The database in the path of a URL; undefined for none. */
function databaseOf(url: URL): string | undefined {
  return url.pathname.length > 1 ? decodeURIComponent(url.pathname.slice(1)) : undefined;
}

/** Why a server with these variables cannot keep a lock, as the rest of a sentence; undefined if it can. */
function refusalOf(values: Map<string, string>): string | undefined {
  const on = (name: string) => !/^(OFF|0|)$/i.test(values.get(name) ?? "");
  const version = values.get("version") ?? "";
  const kind = /mariadb/i.test(version) ? "MariaDB" : "MySQL";
  const number = /\d+(\.\d+)*/.exec(version)?.[0] ?? "0";
  if (Bun.semver.order(number, OLDEST[kind]) < 0)
    return `is ${kind} ${number}: locks need ${OLDEST[kind]} or newer, because older ones count tokens from the start again`;
  if (["read_only", "super_read_only", "innodb_read_only"].some(on))
    return "is read-only, as a replica is: locks need the primary server";
  if (on("wsrep_on") && !/^(none|)$/i.test(values.get("wsrep_provider") ?? ""))
    return "is a node of a Galera cluster, where each node has locks of its own: two nodes would give out the same lock. Use a server outside a cluster, or another store";
  if (on("group_replication_group_name") && !on("group_replication_single_primary_mode"))
    return "is one of several primaries of a group, and each has locks of its own: two would give out the same lock. Use single-primary mode, or another store";
  return undefined;
}

/** The message of anything that was thrown. */
export const message = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Is this the error for a table that does not exist? */
export const isMissingTable = (error: unknown): boolean => causeOf(error)?.errno === NO_SUCH_TABLE;

/** What the client reported, in one of our errors. */
const causeOf = (error: unknown): Partial<SQL.MySQLError> | undefined =>
  error instanceof StoreError && error.cause !== undefined ? (error.cause as SQL.MySQLError) : undefined;

/** The error for a proxy that moves sessions, or that answers settings by itself. */
export function pooled(url: StoreUrl): StoreError {
  return new StoreError(
    `${url.redacted} is a proxy such as ProxySQL: it moves sessions between connections, and a lock that belongs to one would be shared or lost. Give the URL of the server itself`,
  );
}

/** May the same request succeed later, without a change of rights, URL or server? */
const isTransient = ({ errno, code }: Partial<SQL.MySQLError>): boolean =>
  typeof errno === "number" ? TRANSIENT.includes(errno) : code !== "ERR_MYSQL_AUTHENTICATION_FAILED";

/** The client's error as a `StoreError`, without the URL's secrets. */
function failure(error: unknown, url: StoreUrl): StoreError {
  if (error instanceof StoreError) return error;
  const cause = error ?? new Error("closed");
  const temporary = isTransient(cause as Partial<SQL.MySQLError>);
  return new StoreError(`${url.redacted}: ${url.redact(message(cause))}`, { cause, temporary });
}
