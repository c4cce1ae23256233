/** Opening the files that locks live in, and what can be wrong with them. */
import { LockFileError, printable } from "../../errors.ts";
import * as kernel from "../../os/libc.ts";

const { O, E } = kernel;

/** Never through a symbolic link, never into a program that we start, never waiting for a FIFO's other end. */
const SAFE = O.NOFOLLOW | O.CLOEXEC | O.NONBLOCK;

/** So often another file at the path is bad luck; from here on it is a file system that has no lasting inode numbers. */
export const OTHER_FILES_MAX = 1000;

/** The open file of a lock. */
export interface OpenFile {
  fd: number;
  /** May we write into it? */
  ours: boolean;
  status: kernel.FileStatus;
}

/** How a file was opened. */
export type Access = "made" | "written" | "read";

/**
 * Opens the file of a lock, and makes it where it is absent.
 * @param named the user named the file: it must exist, and may be anything that can be opened
 * @throws {LockFileError} when it cannot be made or opened, or is none of ours
 */
export function openFile(path: string, named: boolean): OpenFile {
  const { fd, access } = named ? openExisting(path) : openLockFile(path);
  if (fd < 0) throw openError(path, -fd, named);
  try {
    const status = statusOfOpen(fd, path);
    const fault = named ? undefined : notOurs(status);
    if (fault !== undefined)
      throw new LockFileError(`cannot lock ${printable(path)}: ${fault}`, "EINVAL", "open", path);
    const ours = access === "made" || (access === "written" && status.uid === process.geteuid?.());
    return { fd, status, ours };
  } catch (error) {
    kernel.close(fd);
    throw error;
  }
}

/** Opens a lock file, and makes it where it is absent: with O_EXCL, as two makers must not get two files. */
function openLockFile(path: string): { fd: number; access: Access } {
  for (let others = 0; others <= OTHER_FILES_MAX; others++) {
    const found = openPresent(path);
    if (found.fd !== -E.ENOENT) return found;
    const made = kernel.open(path, O.RDWR | O.CREAT | O.EXCL | SAFE);
    if (made !== -E.EEXIST) return { fd: made, access: "made" };
  }
  throw ofChangingFile(path);
}

/**
 * Opens a lock file that is there. Never with O_CREAT: in a sticky directory Linux refuses that on another user's
 * file (`fs.protected_regular`, proc_sys_fs(5)).
 */
export function openPresent(path: string): { fd: number; access: Access } {
  const fd = kernel.open(path, O.RDWR | SAFE);
  // flock(2) asks for no more than an open file: one that is another user's can be locked without being written.
  if (fd !== -E.EACCES && fd !== -E.EPERM && fd !== -E.EROFS) return { fd, access: "written" };
  return { fd: kernel.open(path, O.RDONLY | SAFE), access: "read" };
}

/** A file or directory that the user named: followed through links as any path, never created, never written. */
export function openExisting(path: string): { fd: number; access: Access } {
  return { fd: kernel.open(path, O.RDONLY | O.CLOEXEC | O.NONBLOCK), access: "read" };
}

export function statusOfOpen(fd: number, path: string): kernel.FileStatus {
  const status = kernel.fstat(fd);
  if (typeof status === "number") throw failed("look at", path, "fstat", -status);
  return status;
}

/**
 * Is this file the one at the path?
 * @throws {LockFileError} when that cannot be seen: it is no sign that the file is gone
 */
export function isStillAt(path: string, file: kernel.FileStatus): "same" | "another" | "gone" {
  const now = kernel.lstat(path);
  if (typeof now !== "number") return kernel.sameFile(now, file) ? "same" : "another";
  if (now === -E.ENOENT) return "gone";
  throw failed("look at", path, "lstat", -now);
}

/** Why a file in the lock's place is not a lock file of ours. */
function notOurs(status: kernel.FileStatus): string | undefined {
  if (!status.regular)
    return "there is something in its place that is not a regular file; remove it or use another --dir";
  if (status.links > 1) return "the file in its place has other links; remove it or use another --dir";
  return undefined;
}

export function openError(path: string, errno: number, named: boolean): LockFileError {
  const advice: Partial<Record<number, string>> = {
    [E.ENOENT]: "make the directory, or name another with --dir",
    [E.EACCES]: "name a directory that you may write with --dir or EXCLUSIVE_DIR",
    [E.EROFS]: "name a directory that can be written with --dir or EXCLUSIVE_DIR",
    [E.ELOOP]: "a symbolic link is in its place; remove it or use another --dir",
    [E.EISDIR]: "a directory is in its place; remove it or use another --dir",
    [E.ENAMETOOLONG]: "name a directory with a shorter path, without NUL bytes",
  };
  if (named)
    return failed(
      "open",
      path,
      "open",
      errno,
      "--file takes a file or directory that exists and can be read",
    );
  let hint = advice[errno];
  const there = errno === E.EACCES ? kernel.lstat(path) : -1;
  if (typeof there !== "number")
    hint = `it is a file of the user with id ${there.uid}, who lets nobody else read it; use another --dir`;
  return failed("open", path, "open", errno, hint);
}

/** A file that cannot be used, by the name of the system call and its errno. */
function failed(doing: string, path: string, operation: string, errno: number, hint?: string): LockFileError {
  return new LockFileError(
    `cannot ${doing} ${printable(path)}: ${kernel.errorText(errno)}${hint ? ` (${hint})` : ""}`,
    kernel.errorName(errno),
    operation,
    path,
  );
}

export function lockError(path: string, errno: number): LockFileError {
  return failed("lock", path, "flock", errno, "does this file system have locks? try exclusive doctor");
}

export function ofChangingFile(path: string): LockFileError {
  const what = "each look finds another file there (has this file system lasting inode numbers?)";
  return new LockFileError(`cannot lock ${printable(path)}: ${what}`, "ESTALE", "lstat", path);
}
