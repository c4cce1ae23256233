/** Which lock a command line means: what the commands that look at locks have in common. */
import { LockFileError } from "../../errors.ts";
import { checkName, slotOf } from "../../name.ts";
import { FileStore } from "../../store/file/file-store.ts";
import { LazyStore } from "../../store/lazy-store.ts";
import type { LockStatus, Store } from "../../store/store.ts";
import { UsageError } from "./exit-status.ts";
import { STORE, type StoreValues, whereOf } from "./store-options.ts";

export const DIR = { dir: { value: "DIR", help: "directory of the lock files" }, ...STORE } as const;

/** Where a lock lives. */
export const PLACE = {
  ...DIR,
  file: { value: "PATH", help: "the lock on this file or directory, as of run --file" },
} as const;

/** The store that the values of `PLACE` name. Its connection lasts as long as the command. */
export function storeOf(place: StoreValues): Store {
  const where = whereOf(place);
  return "url" in where
    ? new LazyStore(where.url, { lasting: true })
    : new FileStore({ dir: where.dir, file: place.file });
}

/**
 * The one NAME among the operands.
 * @throws {UsageError} when there is none, or more
 */
export function oneName(operands: readonly string[]): string {
  if (operands.length === 1) return checkName(operands[0]!);
  throw new UsageError(operands.length === 0 ? "NAME is missing" : "one NAME at a time");
}

/** What is known of a lock. One that has slots is held as long as any of them is, and then has `slots`. */
export async function lookUp(store: Store, name: string): Promise<LockStatus> {
  const status = await store.status(name);
  if (status.state !== "free") return status;
  const all = await store.list().catch((error: unknown) => {
    if (error instanceof LockFileError) return []; // no directory, no slots
    throw error;
  });
  const slots = all.filter(
    (lock) => lock.state === "held" && slotOf(lock.name, name, lock.holder?.slots ?? 0),
  );
  if (slots.length === 0) return status;
  return { ...status, state: "held", holder: slots[0]!.holder, slots };
}
