/** Waiters, as the server's list of processes shows them. */
import { keyIn } from "./lock-table.ts";
import type { Session } from "./session.ts";

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
