/** What can be seen of a lock file from outside, by the kernel's own truth. */
import { LockFileError, printable } from "../errors.ts";
import type { Holder, Mode } from "../holder.ts";
import { isLineName, nameOfFile } from "../name.ts";
import { readHolder } from "./file.ts";
import * as kernel from "./kernel.ts";
import type { LockStatus } from "./store.ts";

const { O, E, LOCK } = kernel;

/** One file's line of /proc/locks. */
interface KernelLock {
  mode: Mode;
  pids: number[];
  waiters: number;
}

type KernelLocks = Map<string, KernelLock>;

const LINE = /^\d+: (-> )?FLOCK +\S+ +(READ|WRITE) +(-?\d+) +([0-9a-f]+):([0-9a-f]+):(\d+) /;

/**
 * The flock(2) locks that /proc/locks shows, by file: empty where there is none. Absence proves nothing: it
 * leaves out holders in pid namespaces that we cannot see, and on btrfs the device number is another one.
 */
function kernelLocks(): KernelLocks {
  const locks: KernelLocks = new Map();
  for (const line of (kernel.readText("/proc/locks") ?? "").split("\n")) {
    const match = LINE.exec(line);
    if (match === null) continue;
    const [, waits, access, pid, major, minor, inode] = match;
    const file = `${Number.parseInt(major!, 16)}:${Number.parseInt(minor!, 16)}:${inode}`;
    let lock = locks.get(file);
    if (lock === undefined) {
      lock = { mode: access === "READ" ? "shared" : "exclusive", pids: [], waiters: 0 };
      locks.set(file, lock);
    }
    if (waits) lock.waiters++;
    else if (Number(pid) > 0) lock.pids.push(Number(pid));
  }
  return locks;
}

const fileKey = ({ dev, ino }: kernel.FileStatus) => `${dev & 0xffff_ffffn}:${dev >> 32n}:${ino}`;

/** What is known of the lock that lives in this file. */
export function statusOf(path: string, name: string, locks: KernelLocks = kernelLocks()): LockStatus {
  const free: LockStatus = { name, state: "free", lockfile: path };
  const file = kernel.lstat(path);
  if (typeof file === "number") {
    if (file === -E.ENOENT) return free;
    const why = kernel.errorText(-file);
    throw new LockFileError(
      `cannot look at ${printable(path)}: ${why}`,
      kernel.errorName(-file),
      "lstat",
      path,
    );
  }
  const lock = locks.get(fileKey(file));
  const fd =
    file.regular || file.directory
      ? kernel.open(path, O.RDONLY | O.NOFOLLOW | O.CLOEXEC | O.NONBLOCK)
      : -E.EACCES;
  try {
    const mode = lock?.mode ?? (fd < 0 ? undefined : askByTaking(fd));
    if (mode === undefined) return fd < 0 ? { ...free, state: "unknown" } : free;
    const holder = fd < 0 || !file.regular ? {} : readHolder(fd);
    return {
      name,
      state: "held",
      lockfile: path,
      holder: corrected(holder, mode, lock),
      waiters: lock?.waiters,
    };
  } finally {
    if (fd >= 0) kernel.close(fd);
  }
}

/**
 * How the lock is held, found out by taking it for a moment: the only way without /proc/locks. Whoever wants
 * the lock in that moment looks again (`FileStore.tryAcquireSync`).
 */
function askByTaking(fd: number): Mode | undefined {
  if (kernel.flock(fd, LOCK.SH | LOCK.NB) === -E.EAGAIN) return "exclusive";
  const shared = kernel.flock(fd, LOCK.EX | LOCK.NB) === -E.EAGAIN;
  kernel.flock(fd, LOCK.UN);
  return shared ? "shared" : undefined;
}

/** The holder by its record, with the pid that the kernel names where the record is not that process's. */
function corrected(holder: Holder, mode: Mode, lock: KernelLock | undefined): Holder {
  const pid = lock?.pids[0];
  if (pid === undefined || holder.pid === undefined || lock?.pids.includes(holder.pid)) {
    return pid === undefined || holder.pid !== undefined ? { ...holder, mode } : { pid, alive: true, mode };
  }
  // The kernel names who took the lock. It may be gone while a command that it started lives on.
  if (holder.alive === false && kernel.lstat(`/proc/${pid}`) === -E.ENOENT) return { ...holder, mode };
  return { pid, alive: true, mode };
}

/** What is known of each lock in a directory, by name. */
export function listDirectory(dir: string): LockStatus[] {
  const files = kernel.readDirectory(dir);
  if (typeof files === "number") {
    throw new LockFileError(
      `cannot list ${printable(dir)}: ${kernel.errorText(-files)}`,
      kernel.errorName(-files),
      "opendir",
      dir,
    );
  }
  const locks = kernelLocks();
  const found: LockStatus[] = [];
  for (const file of files) {
    const name = nameOfFile(file);
    if (name === undefined || isLineName(name)) continue;
    const status = statusOf(`${dir}/${file}`, name, locks);
    if (status.state !== "free" || kernel.lstat(`${dir}/${file}`) !== -E.ENOENT) found.push(status);
  }
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}
