/** Inspects a lock file without taking it: the kernel's tables, and as a last resort a momentary lock. */
import { type Holder, isScarcity, type Mode } from "../../errors.ts";
import { holderByRecord, type WrittenRecord } from "../../holder.ts";
import {
  fileName,
  isSeatName,
  isStopTurnName,
  isWholeName,
  lockOfQueueHead,
  nameOfFile,
  slotOf,
} from "../../name.ts";
import { systemError } from "../../os/errors.ts";
import * as files from "../../os/files.ts";
import { O } from "../../os/files.ts";
import { flock, LOCK, needsWriting } from "../../os/flock.ts";
import {
  fileKey,
  type KernelLock,
  kernelLocks,
  type OpenLock,
  openLocks,
  waitsInKernel,
} from "../../os/lock-table.ts";
import { innermostPid, parentOf, processIds, startTime } from "../../os/processes.ts";
import type { LockStatus } from "../store.ts";
import { type LockFile, readRecord } from "./lock-file.ts";

/** The system at one moment. What many locks have in common is asked once. */
class Snapshot {
  readonly locks = kernelLocks();
  readonly #started = new Map<number, string | undefined>();
  readonly #locks = new Map<number, OpenLock[] | undefined>();

  startTime(pid: number): string | undefined {
    if (!this.#started.has(pid)) this.#started.set(pid, startTime(pid));
    return this.#started.get(pid);
  }

  #openLocks(pid: number): OpenLock[] | undefined {
    if (!this.#locks.has(pid)) this.#locks.set(pid, openLocks(pid));
    return this.#locks.get(pid);
  }

  /** Has this process an open file that holds a lock on this inode? Undefined where the kernel does not tell us. */
  holds(pid: number, inode: bigint): boolean | undefined {
    return this.#openLocks(pid)?.some((lock) => lock.inode === String(inode));
  }

  /**
   * The processes but this one that have the lock on this inode from one of those that took it, as far as the kernel tells
   * us. One that waits for a removed file keeps this one for those that have that: `keepWhileHeld`.
   */
  heirs(inode: bigint, takenBy: readonly (number | undefined)[]): number[] {
    const waits = waitsInKernel();
    const heirs = this.#holdings(String(inode), takenBy).flatMap((pid) => {
      const wait = waits.find((wait) => wait.pid === pid);
      const kept = wait === undefined ? [] : this.#holdings(wait.inode, takenBy);
      return kept.length > 0 ? kept : [pid];
    });
    return [...new Set(heirs)];
  }

  #holdings(inode: string, takers: readonly (number | undefined)[]): number[] {
    const has = (lock: OpenLock) => lock.inode === inode && takers.includes(lock.takenBy);
    return processIds().filter((pid) => pid !== process.pid && this.#openLocks(pid)?.some(has));
  }
}

/**
 * The status of the lock that lives in this file.
 * @throws {LockFileError} where the file cannot even be looked at
 */
export function statusOf(
  { path, fitsName, givenByUser }: LockFile,
  name: string,
  snapshot = new Snapshot(),
): LockStatus {
  const free: LockStatus = { name, state: "free", lockfile: path };
  let file = files.lstat(path);
  if (file === "ENOENT") return free;
  if (typeof file === "string") throw systemError("lstat", path, file);
  const flags = O.RDONLY | O.NONBLOCK | (givenByUser ? 0 : O.NOFOLLOW);
  const opened = givenByUser || file.regular || file.directory ? files.open(path, flags) : "EACCES";
  if (opened === "ENOENT") return free;
  if (typeof opened === "string" && isScarcity(opened)) throw systemError("open", path, opened);
  const fd = typeof opened === "number" ? opened : undefined;
  try {
    if (fd !== undefined) file = files.fstat(fd);
    if (typeof file === "string") throw systemError("fstat", path, file);
    const lock = snapshot.locks.get(fileKey(file));
    const seen: Seen = lock
      ? { state: "held", mode: lock.mode }
      : fd === undefined
        ? { state: "unknown" }
        : probeByTaking(fd, path);
    const { state, mode } = seen;
    if (mode === undefined && fitsName) return { ...free, state };
    const written = fd === undefined || !file.regular || givenByUser ? { record: {} } : readRecord(fd);
    const [holder, ...others] = holders(written, mode ?? "exclusive", lock, file.ino, snapshot);
    const whole = written.record.name;
    return {
      // A record may be forged. The hash in the file's name proves it.
      name: whole !== undefined && path.endsWith(`/${fileName(whole)}`) ? whole : name,
      state,
      lockfile: path,
      ...(mode && { holder, waiters: lock?.waiters }),
      ...(others.length > 0 && { others }),
    };
  } finally {
    if (fd !== undefined) files.close(fd);
  }
}

/** The holders of the lock on an open lock file, as the kernel and the record name them. */
export function holdersOf(fd: number, file: files.FileStatus): Holder[] {
  const snapshot = new Snapshot();
  const lock = snapshot.locks.get(fileKey(file));
  return holders(readRecord(fd), lock?.mode ?? "exclusive", lock, file.ino, snapshot);
}

/** Whether and how a lock is held. */
interface Seen {
  state: LockStatus["state"];
  mode?: Mode;
}

/**
 * Finds out how the lock is held by taking it for a moment: the only way without /proc/locks. A process that wants the lock
 * in that moment tries again (`retriesBeforeRefusal`).
 */
function probeByTaking(fd: number, path: string): Seen {
  const shared = flock(fd, LOCK.SH | LOCK.NB);
  if (shared === "EAGAIN") return { state: "held", mode: "exclusive" };
  if (shared !== undefined) return { state: "unknown" };
  let alone = flock(fd, LOCK.EX | LOCK.NB);
  flock(fd, LOCK.UN);
  if (alone !== undefined && needsWriting(alone)) {
    const writable = files.open(path, O.RDWR | O.NONBLOCK);
    if (typeof writable === "string") return { state: "unknown" };
    alone = flock(writable, LOCK.EX | LOCK.NB);
    files.close(writable);
  }
  if (alone === "EAGAIN") return { state: "held", mode: "shared" };
  return { state: alone === undefined ? "free" : "unknown" };
}

/** The lock's holders. `alive` tells whether the process of that pid took it, not what the record says. */
function holders(
  written: WrittenRecord,
  mode: Mode,
  lock: KernelLock | undefined,
  inode: bigint,
  snapshot: Snapshot,
): Holder[] {
  const { pid: recorded, record } = written;
  const byRecord: Holder = { ...holderByRecord(written, (pid) => snapshot.startTime(pid)), mode };
  // A killed wrapper leaves its command holding the lock; trust the recorded command pid only if the kernel confirms it.
  const { alive, commandPid } = byRecord;
  const isConfirmed = (pid: number) =>
    snapshot.holds(pid, inode) || snapshot.heirs(inode, [recorded]).includes(pid);
  if (alive === false && commandPid !== undefined && !isConfirmed(commandPid))
    byRecord.commandPid = undefined;
  if (lock === undefined) {
    // The kernel does not name the holder: it is in another pid namespace, or it is gone and a child has the lock.
    // If the recorded process exists here but does not hold this lock, the record is stale or forged.
    if (byRecord.alive && snapshot.holds(recorded!, inode) === false) return [{ mode }];
    return heirsOf(byRecord, [recorded ?? 0, 0], inode, snapshot);
  }
  return lock.pids
    .flatMap((pid): Holder[] => {
      if (pid === recorded && byRecord.alive === true) return [byRecord];
      const same = recorded !== undefined && isSameProcess(pid, written, snapshot);
      if (same) return [{ ...byRecord, pid, alive: true, commandPid: childNamed(pid, record.command) }];
      const holds = snapshot.holds(pid, inode);
      if (holds) return [{ pid, alive: true, mode }];
      // The process that took it is gone, and what it left has the lock. Readers write over each other's records: whichever
      // is there tells that the file is one of ours.
      const { host } = mode === "shared" ? byRecord : {};
      const left: Holder =
        pid === recorded && byRecord.alive === false
          ? byRecord
          : { pid, alive: holds, mode, ...(host && { host }) };
      return heirsOf(left, [pid], inode, snapshot);
    })
    .sort((a, b) => Number(b.acquiredAt !== undefined) - Number(a.acquiredAt !== undefined));
}

/**
 * The holders of a lock whose taker is gone: its command, where the kernel confirms that, else the processes that have the
 * taker's open file. Where the kernel names none of them to us, what the record says.
 */
function heirsOf(taker: Holder, takenBy: readonly number[], inode: bigint, snapshot: Snapshot): Holder[] {
  if (taker.alive !== false || taker.commandPid !== undefined) return [taker];
  const pids = snapshot.heirs(inode, takenBy);
  return pids.length === 0 ? [taker] : pids.map((pid) => ({ ...taker, pid, alive: true, left: true }));
}

/** Is this process, in a pid namespace below ours, the one that wrote the record there? */
function isSameProcess(pid: number, { pid: recorded, record }: WrittenRecord, snapshot: Snapshot): boolean {
  return (
    record.started !== undefined &&
    record.started === snapshot.startTime(pid) &&
    innermostPid(pid) === recorded
  );
}

/** The child of a process that its own pid namespace gives this pid. */
function childNamed(parent: number, innermost: number | undefined): number | undefined {
  if (innermost === undefined) return undefined;
  return processIds().find((pid) => parentOf(pid) === parent && innermostPid(pid) === innermost);
}

/** The status of each lock in a directory, by name. */
export function listDirectory(directory: string): LockStatus[] {
  const names = files.readDirectory(directory);
  if (typeof names === "string") throw systemError("opendir", directory, names);
  const snapshot = new Snapshot();
  const found: LockStatus[] = [];
  const queueHeads: LockStatus[] = [];
  for (const file of names) {
    const name = nameOfFile(file);
    if (name === undefined) continue;
    const path = `${directory === "/" ? "" : directory}/${file}`;
    const status = statusOf({ path, fitsName: isWholeName(file), givenByUser: false }, name, snapshot);
    if (isStopTurnName(status.name) || isSeatName(status.name)) continue;
    if (lockOfQueueHead(status.name) !== undefined) queueHeads.push(status);
    else if (status.state !== "free" || typeof files.lstat(path) !== "string") found.push(status);
  }
  for (const head of queueHeads) countWaiters(head, found);
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Processes that wait behind the head of the queue wait for every slot of the lock, so they count at each. */
function countWaiters({ name, waiters }: LockStatus, locks: LockStatus[]): void {
  const base = lockOfQueueHead(name)!;
  for (const lock of waiters ? locks : []) {
    const slots = lock.holder?.slots ?? 0;
    if (slotOf(lock.name, base, slots)) lock.waiters = (lock.waiters ?? 0) + waiters!;
  }
}
