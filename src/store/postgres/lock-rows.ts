/** What sessions publish about their locks, and how it is read. */
import { encodeRecord, type Holder, type HolderRecord, holderByRecord, parseLockFile } from "../../holder.ts";
import { lockStatus } from "../engine.ts";
import type { LockStatus } from "../store.ts";
import { APPLICATION, type Session } from "./session.ts";

/** The server shows 1024 bytes of a statement, unless `track_activity_query_size` differs. The statement needs some. */
const COMMENT_MAX = 960;

/** A holder or waiter. Columns are null where this user may not read another user's session. */
export interface LockRow {
  key: string;
  granted: boolean;
  application: string | null;
  query: string | null;
}

/**
 * The advisory lock of a name: the first 64 bits of its SHA-256. Two names with the same bits would exclude each other,
 * and so would an application's own lock with that number. Both are too unlikely to occur in the life of a database.
 */
export function keyOf(name: string): bigint {
  const hash = new Bun.CryptoHasher("sha256").update(name).digest();
  return hash.readBigInt64BE(0);
}

const COMMENT = /^\/\* exclusive (\d*)\n(.*?) \*\/ /s;

/**
 * The record as a comment in front of a statement. It is ASCII, whatever the server's encoding, and contains nothing
 * that would end the comment or nest another. A record that is too long omits the label, then the name.
 */
export function comment(name: string, record: HolderRecord, token?: bigint): string {
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

/** The holders and waiters of the locks in this database, the holders first. */
export async function locksIn(session: Session, key?: bigint, signal?: AbortSignal): Promise<LockRow[]> {
  const rows = await session.query(
    `SELECT key::text, granted, application_name AS application, query
     FROM (SELECT (classid::bigint << 32) | objid::bigint AS key, granted, pid
           FROM pg_locks JOIN pg_database d ON d.oid = database AND datname = current_database()
           WHERE locktype = 'advisory' AND objsubid = 1) AS l
     LEFT JOIN pg_stat_activity USING (pid)
     ${key === undefined ? "" : `WHERE key = ${key}`} ORDER BY granted DESC, state_change`,
    "",
    signal,
  );
  return rows as unknown as LockRow[];
}

/** The name and the holder in a session's comment, as far as this user may read it. */
function recordOf({ query }: LockRow): { name?: string | undefined; holder: Holder } {
  const [, token, text] = COMMENT.exec(query ?? "") ?? [];
  if (text === undefined) return { holder: {} };
  const written = parseLockFile(text);
  return { name: written.record.name, holder: { ...holderByRecord(written), token: token || undefined } };
}

/** The lock's name, from sessions with the same key. A name is believed only if it has that key. */
export function nameOf(rows: LockRow[]): string {
  const key = rows[0]!.key;
  const shown = rows[0]!.application!.slice(APPLICATION.length);
  const names = rows.map((row) => recordOf(row).name).concat(shown);
  return names.find((name) => name !== undefined && String(keyOf(name)) === key) ?? `${shown}… (${key})`;
}

/** The holders among sessions. */
export const holdersIn = (rows: LockRow[]): Holder[] =>
  rows.filter(({ granted }) => granted).map((row) => recordOf(row).holder);

/** The state of the lock of these sessions. */
export function describe(name: string, location: string, rows: LockRow[]): LockStatus {
  const holders = holdersIn(rows);
  return lockStatus(name, location, holders, rows.length - holders.length);
}
