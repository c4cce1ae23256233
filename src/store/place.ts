/** Places of waiters of which only the newest stays (`latest.ts`), in a remote store. */

import type { Holder } from "../errors.ts";
import { seatName } from "../name.ts";
import type { Lease, Place, Request } from "./store.ts";

/** How often a waiter looks for a newer one. */
const LOOK_MS = 1000;

/** The request for a place, where locks can be shared: each reader of this lock has one. */
export const requestForPlace = (name: string): Request => ({ name: seatName(name), mode: "shared" });

/** A place; the newest has the largest token. @param all asks for the holders of all places of the lock */
export function placeByToken(lease: Lease, all: () => Promise<Holder[]>): Place {
  const tokens = async () => (await all()).map(({ token }) => BigInt(token ?? 0));
  return {
    lease,
    lookEvery: LOOK_MS,
    isNewest: async () => (await tokens()).every((token) => token <= lease.token!),
    hasOlder: async () => (await tokens()).some((token) => token > 0n && token < lease.token!),
  };
}
