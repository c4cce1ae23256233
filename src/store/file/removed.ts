/** Holders of a lock through a file that another program removed. */
import { type Holder, workingPid } from "../../holder.ts";
import * as files from "../../os/files.ts";
import { O } from "../../os/files.ts";
import { lockedRemoved } from "../../os/removed-files.ts";
import type { LockStatus } from "../store.ts";
import { holdersOf } from "./inspect.ts";

/** The holders of removed files of this path, as far as this user may see them. Not this process. */
export function removedHolders(path: string): Holder[] {
  const found = new Map<bigint, Holder[]>();
  for (const file of lockedRemoved(path)) {
    const fd = files.open(file, O.RDONLY | O.NONBLOCK);
    if (typeof fd === "string") continue;
    const status = files.fstat(fd);
    if (typeof status !== "string" && !found.has(status.ino)) found.set(status.ino, holdersOf(fd, status));
    files.close(fd);
  }
  // A waiter keeps older files locked on its way to the lock (rule 6), and their records name others.
  return [...found.values()].flat().filter(({ pid, host }) => host !== undefined && pid !== process.pid);
}

/** Adds the holders whose file another program removed. */
export function withRemoved(lock: LockStatus): LockStatus {
  const known = [lock.holder ?? {}, ...(lock.others ?? [])].map(workingPid);
  const removed = removedHolders(lock.lockfile).filter((holder) => !known.includes(workingPid(holder)));
  return removed.length === 0 ? lock : { ...lock, removed };
}
