/** Earlier holders: what the table and the server show of them, and the wait until none can still be running. */
import { limitInWords } from "../../duration.ts";
import { isSecondHoldName } from "../../name.ts";
import { clock } from "../../os/clock.ts";
import type { EngineOptions } from "../engine.ts";
import { delay } from "../outage.ts";
import { isGone, keyOf, type LockRow, literal, NOW, TABLE } from "./lock-table.ts";
import type { Session } from "./session.ts";

/** Rows of vanished holders are kept for as long as the longest lease. */
const KEPT_MS = 86_400_000;

/**
 * Waits until no earlier holder can still be running: after a restart, after the database has moved to another server,
 * and when both holds of the lock have ended without a release.
 * @returns the tokens of rows that say nothing any more
 */
export async function waitOutEarlierHolders(
  session: Session,
  name: string,
  rows: LockRow[],
  { ttl, location, notice }: EngineOptions & { location: string },
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const key = keyOf(session.database, name);
  const over = rows.filter((row) => row.key !== "" && (row.key === key || row.owner === null));
  const own = over.filter((row) => row.key === key);
  // The main hold comes first, so a second hold with a row ended after the main one, or with it.
  const both = own.length > 0 && (isSecondHoldName(name) || over.length > own.length);
  const vanished = both && !over.every(isGone) ? over : [];
  const tokens = over.map(({ token }) => String(token));
  const left = Math.max(
    ttl - Math.max(0, clock() - session.started),
    await leftSinceMove(session, rows, ttl),
    ...vanished.map(({ since }) => ttl - Math.max(0, since ?? 0)),
  );
  if (left <= 0) return tokens;
  if (vanished.length > 0)
    await session.query(
      `UPDATE ${TABLE} SET ended = ${NOW} WHERE ended IS NULL AND token IN (${tokens.join()})`,
    );
  const why = `${location} has just ended sessions`;
  notice(`${why}: waiting ${limitInWords(left)} in case an earlier holder is still running`);
  await delay(left, why, signal);
  return tokens;
}

/** The rest of one lease since the database moved to this server, in milliseconds. */
async function leftSinceMove(session: Session, rows: LockRow[], ttl: number): Promise<number> {
  const last = rows.find((row) => row.key === "");
  const server = new TextEncoder().encode(session.server);
  if (last !== undefined && Buffer.compare(last.record, server) === 0)
    return ttl - Math.max(0, last.since ?? ttl);
  // A table without that row is new.
  const since = last === undefined ? "0" : NOW;
  const { lastInsertRowid } = await session.query(
    `INSERT INTO ${TABLE} (lock_key, connection_id, ended, record) VALUES ('', 0, ${since}, ${literal(server)})`,
  );
  await session.query(`DELETE FROM ${TABLE} WHERE lock_key = '' AND token < ${lastInsertRowid}`);
  return last === undefined ? 0 : ttl;
}

/** Deletes rows whose session ended a day ago, and marks those whose session has ended since. */
export async function sweep(session: Session): Promise<void> {
  const rows = await session.query(`SELECT token, ended < ${NOW} - ${KEPT_MS} AS old FROM ${TABLE}
    WHERE lock_key <> '' AND IS_USED_LOCK(lock_key) IS NULL AND (ended IS NULL OR ended < ${NOW} - ${KEPT_MS})`);
  const tokens = (old: boolean) => rows.filter((row) => (row.old === 1) === old).map(({ token }) => token);
  const [fresh, old] = [tokens(false), tokens(true)];
  if (fresh.length > 0)
    await session.query(`UPDATE ${TABLE} SET ended = ${NOW} WHERE token IN (${fresh.join()})`);
  if (old.length > 0) await session.query(`DELETE FROM ${TABLE} WHERE token IN (${old.join()})`);
}
