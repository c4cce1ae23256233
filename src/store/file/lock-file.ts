/** One lock file: its path, opening it, reading its record, and what can be wrong with it. */
import { LockFileError, printable } from "../../errors.ts";
import { parseLockFile, type WrittenRecord } from "../../holder.ts";
import { fileName, isWholeName } from "../../name.ts";
import { systemError } from "../../os/errors.ts";
import * as files from "../../os/files.ts";
import { type FileStatus, O } from "../../os/files.ts";
import type { Code } from "../../os/libc.ts";

/** Never through a symbolic link, never waiting for a FIFO's other end. node:fs adds O_CLOEXEC. */
const SAFE = O.NOFOLLOW | O.NONBLOCK;

/** After more inode changes in a row than this, the file system has no stable inode numbers. */
export const ATTEMPTS_MAX = 1000;

/** A record is a few hundred bytes and a label; of a longer file no more is read. */
const RECORD_MAX = 65536;

/** The file that a lock lives in. */
export interface LockFile {
  path: string;
  /** Does the file's name hold all of the lock's name? */
  fitsName: boolean;
  /** The user named the file (`--file`): it may be of any kind, a link is followed, and it is never written or deleted. */
  givenByUser: boolean;
}

/** The lock file of this name in a directory. */
export function lockFileOf(name: string, directory: string): LockFile {
  const file = fileName(name);
  const path = `${directory.replace(/\/+$/, "")}/${file}`;
  return { path, fitsName: isWholeName(file), givenByUser: false };
}

/** A lock file that is open. */
export interface OpenFile {
  fd: number;
  /** May we write into it? */
  writable: boolean;
  status: FileStatus;
}

interface Opened {
  fd: number | Code;
  /** How it was opened. */
  access: "made" | "written" | "read";
}

/**
 * Opens the file of a lock, and makes it where it is absent.
 * @throws {LockFileError} when it cannot be made or opened, or is not a lock file
 */
export function openFile(file: LockFile): OpenFile {
  const { fd, access } = file.givenByUser ? openNamedFile(file.path) : openLockFile(file.path);
  if (typeof fd === "string") throw openError(file, fd);
  try {
    const status = statusOfOpen(fd, file.path);
    if (!file.givenByUser) checkLockFile(file.path, status);
    const writable = access === "made" || (access === "written" && status.uid === process.geteuid?.());
    return { fd, status, writable };
  } catch (error) {
    files.close(fd);
    throw error;
  }
}

/** Opens a lock file, and makes it where it is absent: with O_EXCL, so that two creators cannot end up with two inodes. */
function openLockFile(path: string): Opened {
  for (let attempts = 0; attempts <= ATTEMPTS_MAX; attempts++) {
    const found = openIfPresent(path);
    if (found.fd !== "ENOENT") return found;
    const fd = files.open(path, O.RDWR | O.CREAT | O.EXCL | SAFE);
    if (fd !== "EEXIST") return { fd, access: "made" };
  }
  throw unstableFileError(path);
}

/**
 * Opens a lock file if it is there. Never with O_CREAT: in a sticky directory Linux refuses that on another user's file
 * (`fs.protected_regular`, proc_sys_fs(5)).
 */
export function openIfPresent(path: string): Opened {
  const fd = files.open(path, O.RDWR | SAFE);
  // flock(2) needs no more than an open file: another user's can be locked without being written.
  if (fd !== "EACCES" && fd !== "EPERM" && fd !== "EROFS") return { fd, access: "written" };
  return { fd: files.open(path, O.RDONLY | SAFE), access: "read" };
}

/** Opens a file or directory that the user named: followed through links as any path, never created, never written. */
export function openNamedFile(path: string): Opened {
  return { fd: files.open(path, O.RDONLY | O.NONBLOCK), access: "read" };
}

export function statusOfOpen(fd: number, path: string): FileStatus {
  const status = files.fstat(fd);
  if (typeof status === "string") throw systemError("fstat", path, status);
  return status;
}

/**
 * Compares a file with the one at the path now.
 * @throws {LockFileError} when that cannot be seen: it does not mean that the file is gone
 */
export function isStillAt(path: string, file: FileStatus): "same" | "another" | "gone" {
  const now = files.lstat(path);
  if (typeof now !== "string") return files.sameFile(now, file) ? "same" : "another";
  if (now === "ENOENT") return "gone";
  throw systemError("lstat", path, now);
}

/** The content of an open lock file, as far as it can be read. */
export function readRecord(fd: number): WrittenRecord {
  const bytes = files.pread(fd, RECORD_MAX);
  return typeof bytes === "string" ? { record: {} } : parseLockFile(new TextDecoder().decode(bytes));
}

/** @throws {LockFileError} when the file at a lock file's path is something else */
function checkLockFile(path: string, { regular, links }: FileStatus): void {
  const found = !regular
    ? "there is something in its place that is not a regular file"
    : links > 1
      ? "the file in its place has other links"
      : undefined;
  if (found === undefined) return;
  const reason = `${found}; remove it or use another --dir`;
  throw new LockFileError(`cannot lock ${printable(path)}: ${reason}`, "EINVAL", "open", path);
}

const HINTS: Partial<Record<Code, string>> = {
  ENOENT: "make the directory, or name another with --dir",
  EACCES: "name a directory that you may write with --dir or EXCLUSIVE_DIR",
  EROFS: "name a directory that can be written with --dir or EXCLUSIVE_DIR",
  ELOOP: "a symbolic link is in its place; remove it or use another --dir",
  EISDIR: "a directory is in its place; remove it or use another --dir",
  ENAMETOOLONG: "name a directory with a shorter path, without NUL bytes",
};

export function openError({ path, givenByUser }: LockFile, code: Code): LockFileError {
  return systemError("open", path, code, { hint: givenByUser ? NAMED_HINT : hintFor(path, code) });
}

const NAMED_HINT = "--file takes a file or directory that exists and can be read";

function hintFor(path: string, code: Code): string | undefined {
  const there = code === "EACCES" ? files.lstat(path) : code;
  if (typeof there === "string") return HINTS[code];
  return `it is a file of the user with id ${there.uid}, who lets nobody else read it; use another --dir`;
}

export function lockError(path: string, code: Code): LockFileError {
  return systemError("flock", path, code, { hint: "does this file system have locks? try exclusive doctor" });
}

export function unstableFileError(path: string): LockFileError {
  const reason = "each look finds another file there (has this file system lasting inode numbers?)";
  return new LockFileError(`cannot lock ${printable(path)}: ${reason}`, "ESTALE", "lstat", path);
}
