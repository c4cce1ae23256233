/** Locks on files that were removed from their path, as proc_pid_fd(5) shows them. Linux only. */
import { type FileStatus, readlink, realPath, stat } from "./files.ts";
import { pidNamespace } from "./host.ts";
import { linux } from "./libc.ts";
import { fileKey, kernelLocks, type OpenLock, openLocks } from "./lock-table.ts";
import { processIds } from "./processes.ts";

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
 * The files that were removed from this path and are locked by flock(2), by names under which they can be opened. Not those
 * of which the process that took the lock has the file that is there now, and as far as this user may see them.
 */
export function lockedRemoved(path: string): string[] {
  if (!linux) return [];
  const real = realName(path);
  const living = new Set(processIds());
  const device = deviceOf(path);
  const takers = new Set<number>();
  // Elsewhere /proc/locks has nothing of a process that has ended.
  let anyLeft = pidNamespace() !== FIRST_NAMESPACE;
  for (const [key, { pids }] of kernelLocks())
    for (const pid of pids) {
      if (living.has(pid)) takers.add(pid);
      else if (key.startsWith(device)) anyLeft = true; // any process may have what one that is gone has left
    }
  return [...(anyLeft ? living : takers)].flatMap((pid) => {
    if (pid === process.pid) return [];
    const [removed] = lockedAs(`${real}${REMOVED}`, pid);
    if (removed === undefined) return [];
    const hasCurrent = [pid, removed.takenBy].some((one) => lockedAs(real, one).length > 0);
    return hasCurrent ? [] : [pathOf(pid, removed)];
  });
}

/** How the keys of locks begin that are in the directory of this path. */
function deviceOf(path: string): string {
  const directory = stat(path.slice(0, path.lastIndexOf("/")) || "/");
  return typeof directory === "string" ? "" : fileKey(directory).replace(/[^:]*$/, "");
}

/** The files that were removed from this path and on which this process has a lock of flock(2). */
export function removedFiles(path: string, pid: number): FileStatus[] {
  if (!linux || !path.startsWith("/")) return [];
  const all = lockedAs(`${realName(path)}${REMOVED}`, pid).map((lock) => stat(pathOf(pid, lock)));
  return all.filter((status) => typeof status !== "string");
}

/** A name under which an open file of a process can be opened: proc_pid_fd(5). */
const pathOf = (pid: number, { fd }: OpenLock): string => `/proc/${pid}/fd/${fd}`;

/** The locks that a process has on open files with this target. */
const lockedAs = (target: string, pid: number): OpenLock[] =>
  (openLocks(pid) ?? []).filter((lock) => readlink(pathOf(pid, lock)) === target);
