/** What the server shows of holders and waiters: the table, and its list of processes. */
import { keyIn, type LockRow, NEWEST_FIRST, ROWS } from "./lock-table.ts";
import { isMissingTable, type Session } from "./session.ts";

/** The rows of the table, the newest first. @param where a condition, with its keyword */
export async function rowsIn(session: Session, where = ""): Promise<LockRow[]> {
  try {
    return (await session.query(`${ROWS} ${where} ${NEWEST_FIRST}`)) as unknown as LockRow[];
  } catch (error) {
    if (isMissingTable(error)) return [];
    throw error;
  }
}

const QUERY =
  "SELECT INFO AS statement FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT GET\\_LOCK(%'";

/** The number of waiters by key, as far as this user may see them; undefined where the server does not tell. */
export async function waitersIn(session: Session): Promise<Map<string, number> | undefined> {
  const rows = await session.query(QUERY).catch(() => undefined);
  const counts = new Map<string, number>();
  for (const { statement } of rows ?? []) {
    const key = keyIn(String(statement));
    if (key !== undefined) counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return rows && counts;
}
