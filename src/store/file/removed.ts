/** Holders of a lock through a file that another program removed. */
import { type Holder, holderByRecord } from "../../holder.ts";
import * as files from "../../os/files.ts";
import { O } from "../../os/files.ts";
import { innermostPid } from "../../os/processes.ts";
import { lockersOfRemoved } from "../../os/removed-files.ts";
import type { LockStatus } from "../store.ts";
import { readRecord } from "./lock-file.ts";

/** The holders of removed files of this path, as far as this user may see them. Not this process. */
export function removedHolders(path: string): Holder[] {
  const found: Holder[] = [];
  for (const { pid, file } of lockersOfRemoved(path)) {
    const fd = files.open(file, O.RDONLY | O.NONBLOCK);
    if (typeof fd === "string") continue;
    const written = readRecord(fd);
    files.close(fd);
    // A waiter keeps older files locked on its way to the lock (rule 6), and their records name others.
    if (written.pid === innermostPid(pid)) found.push({ ...holderByRecord(written), pid, alive: true });
  }
  return found;
}

/** Adds the holders whose file another program removed. */
export function withRemoved(lock: LockStatus): LockStatus {
  const removed = removedHolders(lock.lockfile);
  return removed.length === 0 ? lock : { ...lock, removed };
}
