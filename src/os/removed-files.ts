/** Locks on files that were removed from their path, as proc_pid_fd(5) shows them. Linux only. */
import { type FileStatus, readDirectory, readlink, readText, realPath, stat } from "./files.ts";
import { pidNamespace } from "./host.ts";
import { linux } from "./libc.ts";
import { kernelLocks } from "./lock-table.ts";
import { processIds, startTime } from "./processes.ts";

/** A process, and the name under which its open file can be opened. */
export interface RemovedFile {
  pid: number;
  file: string;
  /** The process that took the lock, as in `OpenLock`: this one, or one that has ended. */
  takenBy: number;
}

/** What the kernel adds to the name of an open file that was removed. */
const REMOVED = " (deleted)";

/** The path of a file that may be gone, as the kernel names it. */
function realName(path: string): string {
  const slash = path.lastIndexOf("/");
  return (realPath(path.slice(0, slash) || "/") ?? "").replace(/\/$/, "") + path.slice(slash);
}

/** Has this process an open file at this descriptor that was removed from this path? */
export const isRemovedFrom = (path: string, fd: number): boolean =>
  linux && readlink(`/proc/self/fd/${fd}`) === `${realName(path)}${REMOVED}`;

/** The pid namespace that the machine starts with: `PROC_PID_INIT_INO` of the kernel. */
const FIRST_NAMESPACE = "4026531836";

/**
 * The other processes that have a lock of flock(2) on a file that was removed from this path, and none on the file that is
 * there now, as far as this user may see them. Those that inherited it only where the process that took it has ended.
 */
export function lockersOfRemoved(path: string): RemovedFile[] {
  if (!linux) return [];
  const real = realName(path);
  return lockers().flatMap((pid) => {
    const [removed] = lockedAs(`${real}${REMOVED}`, pid);
    if (removed === undefined || lockedAs(real, pid).length > 0) return [];
    const { takenBy } = removed;
    const isHeir = takenBy !== pid && (takenBy === 0 || startTime(takenBy) === undefined);
    return takenBy === pid || isHeir ? [{ pid, ...removed }] : [];
  });
}

/**
 * The processes that may have a lock: those that have taken one; all, where one of these has ended and may have left it to
 * others. Outside of the first pid namespace /proc/locks has nothing of a process that has ended.
 */
function lockers(): number[] {
  const takers = new Set([...kernelLocks().values()].flatMap((lock) => lock.pids));
  const isComplete =
    pidNamespace() === FIRST_NAMESPACE && [...takers].every((pid) => startTime(pid) !== undefined);
  return (isComplete ? [...takers] : processIds()).filter((pid) => pid !== process.pid);
}

/** The files that were removed from this path and on which this process has a lock of flock(2). */
export function removedFiles(path: string, pid: number): FileStatus[] {
  if (!linux || !path.startsWith("/")) return [];
  const all = lockedAs(`${realName(path)}${REMOVED}`, pid).map(({ file }) => stat(file));
  return all.filter((status) => typeof status !== "string");
}

/** The descriptors of a process that have a lock and this target. */
function lockedAs(target: string, pid: number): Omit<RemovedFile, "pid">[] {
  const descriptors = readDirectory(`/proc/${pid}/fd`);
  if (typeof descriptors === "string") return [];
  return descriptors.flatMap((fd) => {
    const file = `/proc/${pid}/fd/${fd}`;
    const info = readlink(file) === target ? readText(`/proc/${pid}/fdinfo/${fd}`) : undefined;
    const [, takenBy] = /^lock:.* FLOCK +\S+ +\S+ +(-?\d+) /m.exec(info ?? "") ?? [];
    return takenBy === undefined ? [] : [{ file, takenBy: Number(takenBy) }];
  });
}
