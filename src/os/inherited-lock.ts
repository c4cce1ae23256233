/** Proof that this process has inherited a lock of flock(2): an open file that holds it. */
import type { Mode } from "../errors.ts";
import * as files from "./files.ts";
import { type FileStatus, O } from "./files.ts";
import { flock, LOCK } from "./flock.ts";
import { linux } from "./libc.ts";
import { isRemovedFrom } from "./removed-files.ts";

/** How this process holds a lock that it has not taken: `unknown` where that cannot be told. */
export type Inherited = Mode | "none" | "unknown";

/**
 * How an open file of this process holds the lock on a file, or on one that was removed from its path: the command of a
 * holder has that one, and no other. By the descriptors that are open here: what the kernel says of each in
 * proc_pid_fdinfo(5), and without that by `probe`.
 * @param file the one that is at the path now, if any
 * @param own whether a lock counts that this pid has taken: before an execve(2), or a moment ago
 */
export function inheritedLock(path: string, file: FileStatus | undefined, own = true): Inherited {
  const names = files.readDirectory(linux ? "/proc/self/fd" : "/dev/fd");
  const fds = typeof names === "string" ? Array.from({ length: 1024 }, (_, fd) => fd) : names.map(Number);
  const same = fds.filter((fd) => {
    const status = files.fstat(fd);
    if (typeof status === "string") return false;
    return (
      (file !== undefined && files.sameFile(status, file)) || (status.links === 0 && isRemovedFrom(path, fd))
    );
  });
  let found: Inherited = "none";
  for (const fd of same) {
    const how = modeByKernel(fd, own) ?? (own ? probe(path, fd) : "unknown");
    if (how === "exclusive" || how === "shared") return how;
    if (how === "unknown") found = how;
  }
  return found;
}

/** The lock of an open file as the kernel shows it; undefined where it does not. */
function modeByKernel(fd: number, own: boolean): Inherited | undefined {
  const info = linux ? files.readText(`/proc/self/fdinfo/${fd}`) : undefined;
  if (info === undefined) return undefined;
  const [, access, pid] = /^lock:.* FLOCK +\S+ +(READ|WRITE) +(-?\d+) /m.exec(info) ?? [];
  if (access === undefined || (!own && Number(pid) === process.pid)) return "none";
  return access === "READ" ? "shared" : "exclusive";
}

/**
 * Tells by locking. Where another open of the path is refused even a shared lock, one open file has the exclusive lock: the
 * one that is given it again at once, which changes nothing. A shared lock cannot be told without risk: flock(2) gives it up
 * before it converts it.
 */
function probe(path: string, fd: number): Inherited {
  const other = files.open(path, O.RDONLY | O.NONBLOCK);
  if (typeof other === "string") return "unknown";
  try {
    const shared = flock(other, LOCK.SH | LOCK.NB);
    if (shared === "EAGAIN") return flock(fd, LOCK.EX | LOCK.NB) === undefined ? "exclusive" : "none";
    if (shared !== undefined) return "unknown";
    return flock(other, LOCK.EX | LOCK.NB) === undefined ? "none" : "unknown";
  } finally {
    files.close(other);
  }
}
