/** Holders in the answers of Redis. */
import { type Holder, holderByRecord, parseLockFile } from "../../holder.ts";

/** A holder in the answer to `PROBE`. `left`: milliseconds of its lease. */
export type Found = [mode: "exclusive" | "shared", token: string, record: string, left: number];

export function holderOf([mode, token, record]: Found): Holder {
  // A key that another program has set has no token.
  return { ...holderByRecord(parseLockFile(record)), mode, token: token || undefined };
}
