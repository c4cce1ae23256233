/** Holders of a lock through a file that another program removed. */
import { type Holder, holderByRecord, type WrittenRecord } from "../../holder.ts";
import * as files from "../../os/files.ts";
import { O } from "../../os/files.ts";
import { innermostPid, userIdOf } from "../../os/processes.ts";
import { lockersOfRemoved } from "../../os/removed-files.ts";
import type { LockStatus } from "../store.ts";
import { readRecord } from "./lock-file.ts";

/**
 * The holders of removed files of this path, as far as this user may see them. Not this process. Where the process that took
 * the lock has ended, its command, or the keeper: else each process that it left.
 */
export function removedHolders(path: string): Holder[] {
  const found: Holder[] = [];
  const heirs = new Map<number, { written: WrittenRecord; pids: number[] }>();
  for (const { pid, file, takenBy } of lockersOfRemoved(path)) {
    const fd = files.open(file, O.RDONLY | O.NONBLOCK);
    if (typeof fd === "string") continue;
    const written = readRecord(fd);
    const status = files.fstat(fd);
    files.close(fd);
    // A waiter keeps older files locked on its way to the lock (rule 6), and their records name others.
    if (written.pid === innermostPid(pid)) found.push({ ...holderByRecord(written), pid, alive: true });
    else if (written.pid !== undefined && (takenBy === written.pid || takenBy === 0)) {
      // Any process can be given an open file: unix(7).
      if (typeof status === "string" || userIdOf(pid) !== status.uid) continue;
      const others = heirs.get(written.pid)?.pids ?? [];
      heirs.set(written.pid, { written, pids: [...others, pid] });
    }
  }
  for (const { written, pids } of heirs.values()) {
    const taker = { ...holderByRecord(written), alive: false };
    if (taker.commandPid !== undefined && pids.includes(taker.commandPid)) found.push(taker);
    else for (const pid of pids) found.push({ ...taker, pid, alive: true, left: true });
  }
  return found;
}

/** Adds the holders whose file another program removed. */
export function withRemoved(lock: LockStatus): LockStatus {
  const removed = removedHolders(lock.lockfile);
  return removed.length === 0 ? lock : { ...lock, removed };
}
