/** What can be seen of a lock file from outside, by the kernel's own truth. */
import { LockFileError, printable } from "../../errors.ts";
import { type Holder, holderByRecord, type Mode, startTime, type WrittenRecord } from "../../holder.ts";
import { fileName, lockOfQueueHead, nameFits, nameOfFile, slotOf } from "../../name.ts";
import * as kernel from "../../os/libc.ts";
import type { LockStatus } from "../store.ts";
import { readRecord } from "./file-store.ts";

const { O, E, LOCK } = kernel;

/** The flock(2) locks of one file, as /proc/locks has them. */
interface KernelLock {
  mode: Mode;
  /** Pids of those who took it, as this pid namespace numbers them. They may be gone while a child has the lock. */
  pids: number[];
  waiters: number;
}

// Who waits behind one who waits is set in more.
const LINE = /^\d+: +(-> )?FLOCK +\S+ +(READ|WRITE) +(-?\d+) +([0-9a-f]+):([0-9a-f]+):(\d+) /;

/**
 * The flock(2) locks that /proc/locks shows, by file: empty where there is none. Absence proves nothing: it
 * leaves out holders in pid namespaces that we cannot see, and on btrfs the device number is another one.
 */
function kernelLocks(): Map<string, KernelLock> {
  const locks = new Map<string, KernelLock>();
  for (const line of (kernel.readText("/proc/locks") ?? "").split("\n")) {
    const match = LINE.exec(line);
    if (match === null) continue;
    const [, waits, access, pid, major, minor, inode] = match;
    const file = `${Number.parseInt(major!, 16)}:${Number.parseInt(minor!, 16)}:${inode}`;
    const lock = locks.get(file);
    // Those who wait are listed below the holder whom they wait for.
    if (waits) {
      if (lock) lock.waiters++;
    } else if (lock) {
      lock.pids.push(Number(pid));
    } else {
      locks.set(file, { mode: access === "READ" ? "shared" : "exclusive", pids: [Number(pid)], waiters: 0 });
    }
  }
  return locks;
}

const fileKey = ({ dev, ino }: kernel.FileStatus) => `${dev & 0xffff_ffffn}:${dev >> 32n}:${ino}`;

/** One look at the system. What many locks have in common is asked once. */
class Look {
  readonly locks = kernelLocks();
  readonly #started = new Map<number, string | undefined>();
  readonly #locked = new Map<number, Set<string> | undefined>();

  startTime(pid: number): string | undefined {
    if (!this.#started.has(pid)) this.#started.set(pid, startTime(pid));
    return this.#started.get(pid);
  }

  /**
   * Has this process an open file that holds a lock of flock(2) on this inode? The kernel says so of each
   * descriptor, proc_pid_fdinfo(5). Undefined where it does not say it to us.
   */
  holds(pid: number, inode: bigint): boolean | undefined {
    if (!this.#locked.has(pid)) this.#locked.set(pid, lockedInodes(pid));
    return this.#locked.get(pid)?.has(String(inode));
  }
}

function lockedInodes(pid: number): Set<string> | undefined {
  if (process.platform !== "linux") return undefined;
  const dir = `/proc/${pid}/fdinfo`;
  const fds = kernel.readDirectory(dir);
  if (typeof fds === "number") return fds === -E.ENOENT ? new Set() : undefined;
  const inodes = new Set<string>();
  for (const fd of fds) {
    const info = kernel.readText(`${dir}/${fd}`) ?? "";
    for (const [, inode] of info.matchAll(/^lock:.* FLOCK .*:(\d+) /gm)) inodes.add(inode!);
  }
  return inodes;
}

/** Has this process an open file that holds the lock on the file at this path? Linux only. */
export function holdsLock(pid: number, path: string): boolean {
  const file = kernel.lstat(path);
  return typeof file !== "number" && (lockedInodes(pid)?.has(String(file.ino)) ?? false);
}

/** Every process but this one of which that is true: the one that took the lock, and those that inherited it. */
export function processesHolding(path: string): number[] {
  const names = kernel.readDirectory("/proc");
  if (typeof names === "number") return [];
  const pids = names.filter((name) => /^\d+$/.test(name)).map(Number);
  return pids.filter((pid) => pid !== process.pid && holdsLock(pid, path));
}

/**
 * What is known of the lock that lives in this file.
 * @param named the user named the file: it may be a link
 * @throws {LockFileError} where the file cannot even be looked at
 */
export function statusOf(path: string, name: string, named = false, look = new Look()): LockStatus {
  const free: LockStatus = { name, state: "free", lockfile: path };
  let file = kernel.lstat(path);
  if (file === -E.ENOENT) return free;
  if (typeof file === "number") throw cannot("look at", path, -file, "lstat");
  const flags = O.RDONLY | O.CLOEXEC | O.NONBLOCK | (named ? 0 : O.NOFOLLOW);
  const fd = named || file.regular || file.directory ? kernel.open(path, flags) : -E.EACCES;
  if (fd === -E.ENOENT) return free;
  try {
    if (fd >= 0) file = kernel.fstat(fd);
    if (typeof file === "number") throw cannot("look at", path, -file, "fstat");
    const lock = look.locks.get(fileKey(file));
    const seen: Seen = lock
      ? { state: "held", mode: lock.mode }
      : fd < 0
        ? { state: "unknown" }
        : askByTaking(fd);
    const { state, mode } = seen;
    const cut = !named && !nameFits(name);
    if (mode === undefined && !cut) return { ...free, state };
    const written: WrittenRecord = fd < 0 || !file.regular || named ? { record: {} } : readRecord(fd);
    const [holder, ...others] = holders(written, mode ?? "exclusive", lock, file.ino, look);
    const whole = written.record.name;
    return {
      // The record may say anything. The hash in the file's name proves it.
      name: whole !== undefined && path.endsWith(`/${fileName(whole)}`) ? whole : name,
      state,
      lockfile: path,
      ...(mode && { holder, waiters: lock?.waiters }),
      ...(others.length > 0 && { others }),
    };
  } finally {
    if (fd >= 0) kernel.close(fd);
  }
}

/** Whether and how a lock is held. */
interface Seen {
  state: LockStatus["state"];
  mode?: Mode;
}

/**
 * How the lock is held, found out by taking it for a moment: the only way without /proc/locks. Whoever wants
 * the lock in that moment looks again (`FileStore.tryAcquireSync`).
 */
function askByTaking(fd: number): Seen {
  const shared = kernel.flock(fd, LOCK.SH | LOCK.NB);
  if (shared < 0) return shared === -E.EAGAIN ? { state: "held", mode: "exclusive" } : { state: "unknown" };
  const alone = kernel.flock(fd, LOCK.EX | LOCK.NB);
  kernel.flock(fd, LOCK.UN);
  if (alone < 0) return alone === -E.EAGAIN ? { state: "held", mode: "shared" } : { state: "unknown" };
  return { state: "free" };
}

/** Who holds the lock. `alive` says whether the process of that pid is the one that took it, not what the record says. */
function holders(
  written: WrittenRecord,
  mode: Mode,
  lock: KernelLock | undefined,
  inode: bigint,
  look: Look,
): Holder[] {
  const { pid: recorded, record } = written;
  const byRecord: Holder = { ...holderByRecord(written, (pid) => look.startTime(pid)), mode };
  // A wrapper that was killed leaves a command that has the lock. Any other pid in its place is not to be believed.
  const { alive, commandPid } = byRecord;
  if (alive === false && commandPid !== undefined && !look.holds(commandPid, inode))
    byRecord.commandPid = undefined;
  if (lock === undefined) {
    // The kernel does not name the holder: it sits in another pid namespace, or it is gone and a child has the lock.
    // Whose record has a process here that does not hold this lock lies.
    if (byRecord.alive && look.holds(recorded!, inode) === false) return [{ mode }];
    return [byRecord];
  }
  return lock.pids
    .map((pid): Holder => {
      if (pid === recorded && byRecord.alive === true) return byRecord;
      const same = recorded !== undefined && sameProcess(pid, written, look);
      if (same) return { ...byRecord, pid, alive: true, commandPid: childNamed(pid, record.command) };
      const holds = look.holds(pid, inode);
      // The wrapper was killed and its command lives on.
      if (pid === recorded && byRecord.alive === false && holds !== true) return byRecord;
      return { pid, alive: holds, mode };
    })
    .sort((a, b) => Number(b.acquiredAt !== undefined) - Number(a.acquiredAt !== undefined));
}

/** Is this process, in a pid namespace below ours, the one that wrote the record there? */
function sameProcess(pid: number, { pid: recorded, record }: WrittenRecord, look: Look): boolean {
  return (
    record.started !== undefined &&
    record.started === look.startTime(pid) &&
    innermostPid(processStatus(pid)) === recorded
  );
}

/** The child of a process that its own pid namespace gives this pid. */
function childNamed(parent: number, innermost: number | undefined): number | undefined {
  const names = kernel.readDirectory("/proc");
  if (innermost === undefined || typeof names === "number") return undefined;
  const found = names.find((name) => {
    if (!/^\d+$/.test(name)) return false;
    const status = processStatus(Number(name));
    return Number(/^PPid:\s+(\d+)/m.exec(status)?.[1]) === parent && innermostPid(status) === innermost;
  });
  return found === undefined ? undefined : Number(found);
}

/** See proc_pid_status(5). */
const processStatus = (pid: number): string => kernel.readText(`/proc/${pid}/status`) ?? "";

/** The pid in the innermost of the namespaces that a process is in. */
const innermostPid = (status: string): number | undefined => {
  const pids = /^NSpid:(.*)$/m.exec(status)?.[1];
  return pids === undefined ? undefined : Number(pids.trim().split(/\s+/).pop());
};

/** What is known of each lock in a directory, by name. */
export function listDirectory(dir: string): LockStatus[] {
  const files = kernel.readDirectory(dir);
  if (typeof files === "number") throw cannot("list", dir, -files, "opendir");
  const look = new Look();
  const found: LockStatus[] = [];
  const inLine: LockStatus[] = [];
  for (const file of files) {
    const name = nameOfFile(file);
    if (name === undefined) continue;
    const path = `${dir === "/" ? "" : dir}/${file}`;
    const status = statusOf(path, name, false, look);
    if (lockOfQueueHead(status.name) !== undefined) inLine.push(status);
    else if (status.state !== "free" || typeof kernel.lstat(path) !== "number") found.push(status);
  }
  for (const line of inLine) countWaiters(line, found);
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Who waits for the place of the next in line waits for each of the lock's slots. */
function countWaiters({ name, waiters }: LockStatus, locks: LockStatus[]): void {
  const base = lockOfQueueHead(name)!;
  for (const lock of waiters ? locks : []) {
    const slots = lock.holder?.slots ?? 0;
    if (slotOf(lock.name, base, slots)) lock.waiters = (lock.waiters ?? 0) + waiters!;
  }
}

function cannot(what: string, path: string, errno: number, operation: string): LockFileError {
  const why = kernel.errorText(errno);
  return new LockFileError(
    `cannot ${what} ${printable(path)}: ${why}`,
    kernel.errorName(errno),
    operation,
    path,
  );
}
