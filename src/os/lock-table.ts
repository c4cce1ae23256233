/** Locks of flock(2) as the kernel shows them: /proc/locks, and proc_pid_fdinfo(5) of each process. Linux only. */
import type { Mode } from "../errors.ts";
import { type FileStatus, lstat, readDirectory, readText } from "./files.ts";
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

/**
 * Inodes that this process has locks of flock(2) on, by the descriptors that are open in it. Undefined where the OS does
 * not tell us.
 */
export function lockedInodes(pid: number): Set<string> | undefined {
  if (!linux) return undefined;
  const directory = `/proc/${pid}/fdinfo`;
  const fds = readDirectory(directory);
  if (typeof fds === "string") return fds === "ENOENT" ? new Set() : undefined;
  const inodes = new Set<string>();
  for (const fd of fds) {
    const info = readText(`${directory}/${fd}`) ?? "";
    for (const [, inode] of info.matchAll(/^lock:.* FLOCK .*:(\d+) /gm)) inodes.add(inode!);
  }
  return inodes;
}

/** Has this process an open file that holds the lock on the file at this path? */
export function holdsLock(pid: number, path: string): boolean {
  const file = lstat(path);
  return typeof file !== "string" && (lockedInodes(pid)?.has(String(file.ino)) ?? false);
}

/** Every process but this one that holds the lock on the file at this path: the one that took it, and its heirs. */
export function processesHolding(path: string): number[] {
  return linux ? processIds().filter((pid) => pid !== process.pid && holdsLock(pid, path)) : [];
}
