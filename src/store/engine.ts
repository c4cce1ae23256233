/** What an engine's module exports, and what the engines have in common. */
import type { Holder } from "../holder.ts";
import type { TimedLease } from "./lease.ts";
import type { LockStatus, Store } from "./store.ts";
import type { StoreUrl } from "./store-url.ts";

/** Options for opening an engine, checked and complete. */
export interface EngineOptions {
  /** The length of a lease, in milliseconds. */
  ttl: number;
  /** Receives a sentence when something other than a holder delays an acquire. */
  notice: (message: string) => void;
}

/** A module that talks to one kind of server. */
export interface Engine {
  /**
   * Checks the URL. It may connect.
   * @throws {TypeError} for a malformed URL
   * @throws {StoreError} when the server is unreachable or refuses the connection
   */
  open(url: StoreUrl, options: EngineOptions): Promise<Store<TimedLease>>;
}

/**
 * The state of a lock with these holders.
 * @param waiters the number of waiters; undefined where the engine cannot tell
 */
export function lockStatus(
  name: string,
  lockfile: string,
  [holder, ...others]: Holder[],
  waiters?: number,
): LockStatus {
  if (holder === undefined) return { name, state: "free", lockfile };
  return { name, state: "held", lockfile, holder, ...(others.length > 0 && { others }), waiters };
}
