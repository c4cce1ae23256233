/** Locks and holders in the answers of Redis. */
import { type Holder, holderByRecord, parseLockFile } from "../../holder.ts";
import type { Connection } from "./connection.ts";

/** Prefixes of keys. A name follows. */
export const LOCK = "exclusive:lock:";
export const SHARED = "exclusive:shared:";

/** The name of every lock. */
export async function namesIn(connection: Connection): Promise<string[]> {
  const names = new Set<string>();
  let cursor = "0";
  do {
    const scan = [cursor, "MATCH", "exclusive:*", "COUNT", "500"];
    const [next, keys] = await connection.send("SCAN", scan);
    for (const key of keys as string[]) {
      if (key.startsWith(LOCK)) names.add(key.slice(LOCK.length));
      if (key.startsWith(SHARED)) names.add(key.slice(SHARED.length));
    }
    cursor = next;
  } while (cursor !== "0");
  return [...names];
}

/** A holder in the answer to `PROBE`. `left`: milliseconds of its lease. */
export type Found = [mode: "exclusive" | "shared", token: string, record: string, left: number];

export function holderOf([mode, token, record]: Found): Holder {
  // A key that another program has set has no token.
  return { ...holderByRecord(parseLockFile(record)), mode, token: token || undefined };
}
