/** One lock file: its path, opening it, reading its record, and what can be wrong with it. */
import { type Holder, LockFileError, type Mode, printable } from "../../errors.ts";
import { holderByRecord, parseLockFile, type WrittenRecord } from "../../holder.ts";
import { checkPath, fileName, isWholeName } from "../../name.ts";
import { systemError } from "../../os/errors.ts";
import * as files from "../../os/files.ts";
import { type FileStatus, O } from "../../os/files.ts";
import { flock, LOCK, needsWriting } from "../../os/flock.ts";
import type { Code } from "../../os/libc.ts";
import { userName } from "../../os/processes.ts";
import { closeAtThreadEnd } from "../../os/thread-end.ts";

/** Never through a symbolic link, never waiting for a FIFO's other end. node:fs adds O_CLOEXEC. */
const SAFE = O.NOFOLLOW | O.NONBLOCK;

/** After more inode changes in a row than this, the file system has no stable inode numbers. */
export const ATTEMPTS_MAX = 1000;

/** A record is a few hundred bytes and a label; of a longer file no more is read. */
const RECORD_MAX = 65536;

/**
 * The mode of a lock file: all may open it, whatever the umask was. The sticky bit keeps systemd-tmpfiles away
 * (tmpfiles.d(5); before version 254 it removes files that are locked).
 */
export const FILE_MODE = 0o1644;

/** The mode of a file that stays after its lock was released: cleaners may remove it. */
export const LEFT_MODE = 0o644;

/** Pauses, in milliseconds, before a file that its creator is about to make readable is opened again. */
const OPEN_PAUSES = [1, 2, 4, 8, 16];

/** The file that a lock lives in. */
export interface LockFile {
  path: string;
  /** Does the file's name hold all of the lock's name? */
  fitsName: boolean;
  /** The user named the file (`--file`): it may be of any kind, a link is followed, and it is never written or deleted. */
  givenByUser: boolean;
}

/** Where a store of files has its locks. */
export interface FileStoreOptions {
  /** Directory of the lock files. Default: see `defaultDirectory`. */
  dir?: string | undefined;
  /** Leave the lock file in place on release, emptied. */
  keep?: boolean | undefined;
  /** Lock this existing file or directory as it is, instead of one named after the lock. */
  file?: string | undefined;
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
    // The umask took bits away, or the OS the sticky one.
    if (access === "made" && status.mode !== FILE_MODE) files.fchmod(fd, FILE_MODE);
    const writable = access === "made" || (access === "written" && status.uid === process.geteuid?.());
    return { fd, status, writable };
  } catch (error) {
    files.close(fd);
    throw error;
  }
}

/** Opens a lock file, and makes it where it is absent: with O_EXCL, so that two creators cannot end up with two inodes. */
function openLockFile(path: string): Opened {
  // A free lock has no file, as a rule: to ask costs a quarter of an open(2) that throws ENOENT.
  for (let attempts = 0, present = files.exists(path); attempts <= ATTEMPTS_MAX; attempts++, present = true) {
    const found = present ? openIfPresent(path) : undefined;
    if (found !== undefined && found.fd !== "ENOENT") return found;
    const fd = files.open(path, O.RDWR | O.CREAT | O.EXCL | SAFE, FILE_MODE);
    if (fd !== "EEXIST") return { fd, access: "made" };
  }
  throw unstableFileError(path);
}

/**
 * Opens a lock file if it is there. Never with O_CREAT: in a sticky directory Linux refuses that on another user's file
 * (`fs.protected_regular`, proc_sys_fs(5)).
 */
export function openIfPresent(path: string): Opened {
  for (let retries = 0; ; retries++) {
    const opened = openAnyhow(path);
    if (opened.fd !== "EACCES" || retries === OPEN_PAUSES.length) return opened;
    // A file that cannot be opened has just been made under a strict umask, or its maker crashed before its fchmod(2).
    const status = files.lstat(path);
    if (typeof status === "string" || !status.regular) {
      if (status !== "ENOENT") return opened;
    } else if (files.chmodOwn(path, FILE_MODE) !== undefined) Bun.sleepSync(OPEN_PAUSES[retries]!);
  }
}

/** flock(2) needs no more than an open file: another user's can be locked without being written, or read. */
function openAnyhow(path: string): Opened {
  let fd = files.open(path, O.RDWR | SAFE);
  if (!isDenied(fd)) return { fd, access: "written" };
  fd = files.open(path, O.RDONLY | SAFE);
  return { fd: fd === "EACCES" ? files.open(path, O.WRONLY | SAFE) : fd, access: "read" };
}

const isDenied = (fd: number | Code): boolean => fd === "EACCES" || fd === "EPERM" || fd === "EROFS";

/** Opens a file or directory that the user named: followed through links as any path, never created, never written. */
export function openNamedFile(path: string): Opened {
  return { fd: files.open(path, O.RDONLY | O.NONBLOCK), access: "read" };
}

/**
 * Opens again for writing a file whose exclusive lock failed for want of it, as on NFS.
 * @returns whether the lock is to be tried again; the descriptor is then another one
 */
export function reopenForLock({ path, givenByUser }: LockFile, open: OpenFile, failure: Code): boolean {
  if (!needsWriting(failure)) return false;
  const fd = files.open(path, O.RDWR | (givenByUser ? O.NONBLOCK : SAFE));
  if (typeof fd === "string") return false;
  files.close(open.fd);
  open.fd = fd;
  open.status = statusOfOpen(fd, path);
  return true;
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
export function isStillAt({ path, givenByUser }: LockFile, file: FileStatus): "same" | "another" | "gone" {
  const now = givenByUser ? files.stat(path) : files.lstat(path); // the user's path may have links
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
    ? "its place is taken by something that is not a regular file"
    : links > 1
      ? "the file in its place has other links"
      : undefined;
  if (found === undefined) return;
  const reason = `${found}; remove it or use another directory`;
  throw new LockFileError(`cannot lock ${printable(path)}: ${reason}`, "EINVAL", "open", path);
}

const HINTS: Partial<Record<Code, string>> = {
  ENOENT: "make the directory, or use another one",
  EACCES: "use a directory that you may write (EXCLUSIVE_DIR names one)",
  EROFS: "is this a sandbox? permit writing there, or use another directory (EXCLUSIVE_DIR names one)",
  ELOOP: "a symbolic link is in its place; remove it or use another directory",
  EISDIR: "a directory is in its place; remove it or use another directory",
  ENAMETOOLONG: "use a directory with a shorter path, without NUL bytes",
};

export function openError({ path, givenByUser }: LockFile, code: Code): LockFileError {
  return systemError("open", path, code, { hint: givenByUser ? NAMED_HINT : hintFor(path, code) });
}

const NAMED_HINT = "file must name a file or directory that exists and can be read";

function hintFor(path: string, code: Code): string | undefined {
  const there = code === "EACCES" ? files.lstat(path) : code;
  if (typeof there === "string") return HINTS[code];
  const owner = userName(there.uid) ?? `user ${there.uid}`;
  return `owned by ${owner} and not readable by you; ${owner === "root" ? "root" : `${owner} or root`} can remove it, or use another directory`;
}

export function lockError(path: string, code: Code): LockFileError {
  return systemError("flock", path, code, {
    hint: "does this file system have locks? try exclusive doctor",
  });
}

export function unstableFileError(path: string): LockFileError {
  const reason = "each look finds another file there (does this file system have stable inode numbers?)";
  return new LockFileError(`cannot lock ${printable(path)}: ${reason}`, "ESTALE", "lstat", path);
}

/** The operation of flock(2). */
export const operation = (mode: Mode): number => (mode === "shared" ? LOCK.SH : LOCK.EX);

/** Tries to lock, for which the file is opened again where the file system needs that. */
export function tryLock(file: LockFile, open: OpenFile, mode: Mode): Code | undefined {
  const failure = flock(open.fd, operation(mode) | LOCK.NB);
  if (failure === undefined || mode === "shared") return failure;
  if (reopenForLock(file, open, failure)) return flock(open.fd, operation(mode) | LOCK.NB);
  // Another user's file, which we may not write: whether it is held can be told all the same.
  if (needsWriting(failure) && flock(open.fd, LOCK.SH | LOCK.NB) === "EAGAIN") return "EAGAIN";
  return failure;
}

/** A path that means the same after a change of directory. @throws {TypeError} when it is empty or no text */
export function absolute(what: string, path: string): string {
  if (checkPath(what, path).startsWith("/")) return path;
  return checkPath(what, files.absolute(path));
}

/** The holder by the record in an open file. */
export const readHolder = (fd: number): Holder => holderByRecord(readRecord(fd));

/** Opens the file of a lock. A Worker that is terminated has it closed, and the lock is free. */
export function openGuarded(file: LockFile): OpenFile {
  const open = openFile(file);
  closeAtThreadEnd(open.fd);
  return open;
}

/** Closes an open file, with its lock. */
export function closed(file: OpenFile | undefined): void {
  if (file !== undefined) files.close(file.fd);
}

/** Closes all files but the last one, and that too unless it is before this one. */
export function onlyLastBefore(next: OpenFile, all: OpenFile[]): OpenFile[] {
  const stays = all.slice(-1).filter(({ status }) => files.isBefore(status, next.status));
  for (const file of all) if (!stays.includes(file)) closed(file);
  return stays;
}
