/** Locks of flock(2) as the kernel shows them: /proc/locks, and proc_pid_fdinfo(5) of each process. Linux only. */
import type { Mode } from "../errors.ts";
import { type FileStatus, lstat, readDirectory, readlink, readText } from "./files.ts";
import { linux } from "./libc.ts";
import { processIds } from "./processes.ts";

/** The flock(2) locks of one file. */
export interface KernelLock {
  mode: Mode;
  /** Pids of the processes that took it, as this pid namespace numbers them. They may be gone while a child has the lock. */
  pids: number[];
  waiters: number;
}

// /proc/locks indents waiters of waiters further.
const LINE = /^\d+: +(-> )?FLOCK +\S+ +(READ|WRITE) +(-?\d+) +([0-9a-f]+):([0-9a-f]+):(\d+) /;

/**
 * The flock(2) locks that /proc/locks shows, by `fileKey`. Absence proves nothing: it leaves out holders in pid namespaces
 * that we cannot see, and on btrfs it shows another device number.
 */
export function kernelLocks(): Map<string, KernelLock> {
  const locks = new Map<string, KernelLock>();
  for (const line of (readText("/proc/locks") ?? "").split("\n")) {
    const match = LINE.exec(line);
    if (match === null) continue;
    const [, waits, access, pid, major, minor, inode] = match;
    const key = keyOf(Number.parseInt(major!, 16), Number.parseInt(minor!, 16), inode!);
    const lock = locks.get(key);
    // Waiters are listed below the holder that they wait for.
    if (waits) {
      if (lock) lock.waiters++;
    } else if (lock) {
      lock.pids.push(Number(pid));
    } else {
      locks.set(key, { mode: access === "READ" ? "shared" : "exclusive", pids: [Number(pid)], waiters: 0 });
    }
  }
  return locks;
}

/** A process that waits in flock(2), and the inode that it waits for. */
export interface KernelWait {
  pid: number;
  inode: string;
}

/** The waits that /proc/locks shows. */
export function waitsInKernel(): KernelWait[] {
  const waits: KernelWait[] = [];
  for (const line of (readText("/proc/locks") ?? "").split("\n")) {
    const [, waiting, , pid, , , inode] = LINE.exec(line) ?? [];
    if (waiting) waits.push({ pid: Number(pid), inode: inode! });
  }
  return waits;
}

const keyOf = (major: number, minor: number, inode: bigint | string) => `${major}:${minor}:${inode}`;

/** The file's key in `kernelLocks()`. `st_dev` is packed by makedev(3): low bytes first, the rest of each above. */
export function fileKey({ dev, ino }: FileStatus): string {
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xffff_f000n);
  const minor = (dev & 0xffn) | ((dev >> 12n) & 0xffff_ff00n);
  return keyOf(Number(major), Number(minor), ino);
}

/** An open file of a process, with a lock of flock(2) on it. */
export interface OpenLock {
  fd: number;
  inode: string;
  /**
   * The process that took the lock. All that inherited this open file show the same one; another process that takes the
   * lock later shows itself. 0 where it has ended and we are in a pid namespace of our own.
   */
  takenBy: number;
  /** A program that this process executes gets it. */
  inheritable: boolean;
}

const LOCK_LINE = /^lock:.* FLOCK +\S+ +\S+ +(-?\d+) .*:(\d+) /gm;
const CLOSE_ON_EXEC = /^flags:\s+0?[2367]\d{6}$/m;

/** The locks of flock(2) that this process has, by its descriptors. Undefined where the OS does not tell us. */
export function openLocks(pid: number): OpenLock[] | undefined {
  if (!linux) return undefined;
  const directory = `/proc/${pid}/fdinfo`;
  const fds = readDirectory(directory);
  if (typeof fds === "string") return fds === "ENOENT" ? [] : undefined;
  const found: OpenLock[] = [];
  for (const fd of fds) {
    // Most are pipes and sockets, which have no such locks: to see that costs a third.
    if (readlink(`/proc/${pid}/fd/${fd}`)?.startsWith("/") === false) continue;
    const info = readText(`${directory}/${fd}`) ?? "";
    for (const [, by, inode] of info.matchAll(LOCK_LINE))
      found.push({
        fd: Number(fd),
        inode: inode!,
        takenBy: Number(by),
        inheritable: !CLOSE_ON_EXEC.test(info),
      });
  }
  return found;
}

/** Has this process an open file that holds the lock on the file at this path? */
export function holdsLock(pid: number, path: string): boolean {
  const file = lstat(path);
  return typeof file !== "string" && (openLocks(pid) ?? []).some(({ inode }) => inode === String(file.ino));
}

/** A process that has the lock of a file. */
export interface LockHolding extends OpenLock {
  pid: number;
}

/** Every process but this one that has the lock on this inode: the one that took it, and its heirs. */
export function holdingsOf(
  inode: bigint,
  among: readonly number[] = linux ? processIds() : [],
): LockHolding[] {
  return among
    .filter((pid) => pid !== process.pid)
    .flatMap((pid) => (openLocks(pid) ?? []).map((lock) => ({ pid, ...lock })))
    .filter((lock) => lock.inode === String(inode));
}

/** The pids of every process but this one that holds the lock on the file at this path. */
export function processesHolding(path: string): number[] {
  const file = lstat(path);
  return typeof file === "string" ? [] : [...new Set(holdingsOf(file.ino).map(({ pid }) => pid))];
}
