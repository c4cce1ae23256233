/** The table beside the locks: it gives out fencing tokens, and says what the server's locks cannot: by which process. */
import { WrongArgument } from "../../errors.ts";
import {
  encodeRecord,
  type Holder,
  type HolderRecord,
  holderByRecord,
  parseLockFile,
  type WrittenRecord,
} from "../../holder.ts";
import { processExists } from "../../os/processes.ts";
import type { Request } from "../store.ts";

export const TABLE = "exclusive_locks";

/**
 * One row for each held lock; it never decides whether a lock is held. `token` comes from a counter that survives
 * deleted rows, restarts, dumps and replication. `ended`, in milliseconds since 1970 by the server's clock, is when the
 * lock was first seen without its session. The row with an empty key has the server that gave out the last locks.
 */
export const CREATE_TABLE = `CREATE TABLE IF NOT EXISTS ${TABLE} (
  token BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
  lock_key VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  connection_id BIGINT UNSIGNED NOT NULL,
  ended BIGINT,
  record MEDIUMBLOB NOT NULL,
  KEY (lock_key)
) ENGINE = InnoDB`;

const KEY_PREFIX = "exclusive:";
/** Hexadecimal digits of a key: 192 bits. */
const KEY_DIGITS = 48;

/**
 * The server's name for a lock. Names of `GET_LOCK` have 64 characters at most, ignore case, and are common to all
 * databases of the server. So every one is a prefix and a hash of the database and the name.
 */
export function keyOf(database: string, name: string): string {
  const hash = new Bun.CryptoHasher("sha256").update(`${database}\0${name}`).digest("hex");
  return KEY_PREFIX + hash.slice(0, KEY_DIGITS);
}

/** The key in a statement that waits for a lock. */
export const keyIn = (statement: string): string | undefined =>
  new RegExp(`^SELECT GET_LOCK\\('(${KEY_PREFIX}[0-9a-f]{${KEY_DIGITS}})'`).exec(statement)?.[1];

/** Bytes as a literal of SQL that no setting of the server reads in another way. */
export const literal = (bytes: Uint8Array): string => `x'${bytes.toHex()}'`;

/** The record of a lock, with its name, as a literal. */
export const recordLiteral = (name: string, record: HolderRecord): string =>
  literal(encodeRecord({ ...record, name }));

/** A row of the table, as `ROWS` selects it. */
export interface LockRow {
  token: number | string;
  key: string;
  connection: number;
  /** The connection that holds the lock now; null for none. */
  owner: number | null;
  record: Uint8Array;
  /** Milliseconds since the lock was first seen without its session; null if it never was. */
  since: number | null;
}

/** Milliseconds since 1970, by the server's clock. */
export const NOW = "CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED)";

/** A query for rows, the newest first. */
export const ROWS = `SELECT token, lock_key AS \`key\`, connection_id AS \`connection\`,
  IF(lock_key = '', NULL, IS_USED_LOCK(lock_key)) AS owner, record, ${NOW} - ended AS since FROM ${TABLE}`;

export const NEWEST_FIRST = "ORDER BY token DESC";

const written = (row: LockRow): WrittenRecord => parseLockFile(new TextDecoder().decode(row.record));

/** The row of the lock's holder. A restarted server gives old numbers to new connections, so the newest row counts. */
export const rowOfOwner = (rows: LockRow[]): LockRow | undefined =>
  rows.find(({ owner, connection }) => owner !== null && owner === connection);

export const nameIn = (row: LockRow): string | undefined => written(row).record.name;

export const holderIn = (row: LockRow): Holder => ({
  ...holderByRecord(written(row)),
  token: String(row.token),
});

/** Has the process that wrote this row ended, and its command too? False where this cannot be known from here. */
export function isGone(row: LockRow): boolean {
  const { alive, commandPid } = holderIn(row);
  return alive === false && (commandPid === undefined || !processExists(commandPid));
}

/** @throws {TypeError} for a shared lock */
export function refuseShared({ mode }: Request): void {
  if (mode === "shared") throw new WrongArgument("a lock in MySQL cannot be shared: GET_LOCK has no readers");
}
