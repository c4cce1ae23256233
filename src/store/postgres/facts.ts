/** What an operator should know of a PostgreSQL server. */
import { clockInWords } from "../../duration.ts";
import type { Session } from "./session.ts";

const FACTS = `SELECT current_setting('server_version') AS version, (SELECT count(*) FROM pg_stat_activity) AS used,
  current_setting('max_connections') AS most, current_setting('synchronous_commit') AS commit,
  current_setting('synchronous_standby_names') AS synchronous,
  (1000 * extract(epoch FROM clock_timestamp()))::float8 AS now`;

export async function factsOf(session: Session): Promise<Record<string, string>> {
  const [row] = await session.query(FACTS);
  const ahead = Number(row!.now) - Date.now();
  return {
    version: String(row!.version),
    connections: `${row!.used} of ${row!.most} in use; a lock needs two`,
    replication: `synchronous_commit is ${row!.commit}, ${row!.synchronous || "no synchronous standby"}. A standby knows no locks: after a promotion the next holder waits up to a lease`,
    pooler: "none",
    clock: clockInWords(ahead),
    "smallest sensible --ttl": "3s, more than a restart takes",
  };
}
