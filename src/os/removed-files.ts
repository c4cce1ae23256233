/** Locks on files that were removed from their path, as proc_pid_fd(5) shows them. Linux only. */
import { type FileStatus, readDirectory, readlink, readText, realPath, stat } from "./files.ts";
import { linux } from "./libc.ts";
import { kernelLocks } from "./lock-table.ts";

/** A process, and the name under which its open file can be opened. */
export interface RemovedFile {
  pid: number;
  file: string;
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

/**
 * The other processes that have a lock of flock(2) on a file that was removed from this path, and none on the file that is
 * there now, as far as this user may see them.
 */
export function lockersOfRemoved(path: string): RemovedFile[] {
  if (!linux) return [];
  const real = realName(path);
  const pids = new Set([...kernelLocks().values()].flatMap((lock) => lock.pids));
  pids.delete(process.pid);
  return [...pids].flatMap((pid) => {
    const [removed] = lockedAs(`${real}${REMOVED}`, pid);
    return removed === undefined || lockedAs(real, pid).length > 0 ? [] : [{ pid, file: removed }];
  });
}

/** The files that were removed from this path and on which this process has a lock of flock(2). */
export function removedFiles(path: string, pid: number): FileStatus[] {
  if (!linux || !path.startsWith("/")) return [];
  const all = lockedAs(`${realName(path)}${REMOVED}`, pid).map((file) => stat(file));
  return all.filter((status) => typeof status !== "string");
}

/** The descriptors of a process that have a lock and this target. */
function lockedAs(target: string, pid: number): string[] {
  const descriptors = readDirectory(`/proc/${pid}/fd`);
  if (typeof descriptors === "string") return [];
  return descriptors
    .filter(
      (fd) =>
        readlink(`/proc/${pid}/fd/${fd}`) === target &&
        /^lock:.* FLOCK /m.test(readText(`/proc/${pid}/fdinfo/${fd}`) ?? ""),
    )
    .map((fd) => `/proc/${pid}/fd/${fd}`);
}
