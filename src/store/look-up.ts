/** The status of a lock that may have slots. */
import { LockFileError } from "../errors.ts";
import { slotOf } from "../name.ts";
import type { LockStatus, Store } from "./store.ts";

/** Returns a lock's status. A lock with slots is held while any slot is, and its status then has `slots`. */
export async function statusWithSlots(store: Store, name: string): Promise<LockStatus> {
  const status = await store.status(name);
  if (status.state !== "free") return status;
  const slots = await heldSlots(store, name);
  if (slots.length === 0) return status;
  return { ...status, state: "held", holder: slots[0]!.holder, slots };
}

/** The slots of a lock that are held. */
export async function heldSlots(store: Store, name: string): Promise<LockStatus[]> {
  const all = await store.list().catch((error: unknown) => {
    if (error instanceof LockFileError) return []; // no directory, no slots
    throw error;
  });
  return all.filter((lock) => lock.state === "held" && slotOf(lock.name, name, lock.holder?.slots ?? 0));
}
