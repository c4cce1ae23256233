/**
 * Files, by node:fs. Most failures here are ordinary answers (`ENOENT`, `EEXIST`), so a function returns the code of a
 * failure where its caller would compare it.
 */
import { codeOf, systemError } from "./errors.ts";
import { type Code, linux } from "./libc.ts";
import { dropFileSizeSignal } from "./signal-mask.ts";
import { forgetAtThreadEnd } from "./thread-end.ts";

// Required, not imported: a static import is hoisted above the code that blocks the signals, see `signals.ts`.
const fs = require("node:fs") as typeof import("node:fs");

/** Flags of open(2). Bun adds O_CLOEXEC to all of them. */
export const O = {
  RDONLY: fs.constants.O_RDONLY,
  WRONLY: fs.constants.O_WRONLY,
  RDWR: fs.constants.O_RDWR,
  CREAT: fs.constants.O_CREAT,
  EXCL: fs.constants.O_EXCL,
  NOCTTY: fs.constants.O_NOCTTY,
  NONBLOCK: fs.constants.O_NONBLOCK,
  NOFOLLOW: fs.constants.O_NOFOLLOW,
  APPEND: fs.constants.O_APPEND,
} as const;

/**
 * A path that means the same after a change of directory.
 * @throws {LockFileError} for a relative path where the current directory is gone: Bun would take the executable's
 */
export function absolute(path: string): string {
  if (path.startsWith("/")) return path;
  try {
    return (require("node:path") as typeof import("node:path")).resolve(process.cwd(), path);
  } catch (error) {
    const doing = "find the relative path";
    throw systemError("open", path, codeOf(error), { doing, hint: "the current directory was deleted" });
  }
}

/** Names a file without opening it, so its mode is not asked for. Linux only, and not among node:fs's constants. */
const O_PATH = 0o10000000;

/** What access(2) asks for. */
export const ACCESS = { X: 1, W: 2, R: 4 } as const;

/** A path; as bytes where it may be other than UTF-8. */
export type Path = string | Uint8Array;

/** The result of a call, or the code of its failure. */
function attempt<T>(call: () => T): T | Code {
  try {
    return call();
  } catch (error) {
    return codeOf(error);
  }
}

/** The code of the failure of a call without a result. */
function failureIn(call: () => void): Code | undefined {
  const result = attempt(call);
  return typeof result === "string" ? result : undefined;
}

/** open(2); the mode counts where `O.CREAT` is given, less the umask. */
export function open(path: Path, flags: number, mode = 0o644): number | Code {
  if (path.length === 0) return "ENOENT"; // node:fs calls empty bytes a wrong type
  return attempt(() => fs.openSync(path as Buffer, flags, mode));
}

export function close(fd: number): Code | undefined {
  forgetAtThreadEnd(fd);
  return failureIn(() => fs.closeSync(fd));
}

/** Makes /dev/null of a standard stream: open(2) gives the lowest number that is free. */
export function toNowhere(fd: 0 | 1 | 2): void {
  close(fd);
  open("/dev/null", O.RDWR);
}

/** Is there a file, as far as can be seen? A link to nothing is none. */
export const exists = (path: string): boolean => fs.existsSync(path);

export const unlink = (path: string): Code | undefined => failureIn(() => fs.unlinkSync(path));

export const ftruncate = (fd: number, length: number): Code | undefined =>
  failureIn(() => fs.ftruncateSync(fd, length));

export const access = (path: Path, mode: number): Code | undefined =>
  failureIn(() => fs.accessSync(path as Buffer, mode));

export const fchmod = (fd: number, mode: number): Code | undefined =>
  failureIn(() => fs.fchmodSync(fd, mode));

/** Sets the times of an open file to now. */
export function touch(fd: number): Code | undefined {
  const now = new Date();
  return failureIn(() => fs.futimesSync(fd, now, now));
}

/**
 * Sets the mode of this user's own regular file, which may be one that cannot be opened. The path is not asked twice:
 * what another process puts there meanwhile keeps its mode.
 */
export function chmodOwn(path: string, mode: number): Code | undefined {
  if (!linux) return failureIn(() => fs.lchmodSync(path, mode));
  const fd = open(path, O_PATH | O.NOFOLLOW);
  if (typeof fd === "string") return fd;
  const status = fstat(fd);
  const own = typeof status !== "string" && status.regular && status.uid === process.geteuid?.();
  const failure = own ? failureIn(() => fs.chmodSync(`/proc/self/fd/${fd}`, mode)) : "EPERM";
  close(fd);
  return failure;
}

/** Writes all of the bytes at the start of the file. */
export const pwrite = (fd: number, bytes: Uint8Array): Code | undefined => writeAll(fd, bytes, true);

/** Writes text to a descriptor, as a command does on stdout and stderr. */
export const write = (fd: number, text: string | Uint8Array): Code | undefined =>
  writeAll(fd, typeof text === "string" ? new TextEncoder().encode(text) : text, false);

function writeAll(fd: number, bytes: Uint8Array, byPosition: boolean): Code | undefined {
  for (let done = 0; done < bytes.length; ) {
    const n = attempt(() => fs.writeSync(fd, bytes, done, bytes.length - done, byPosition ? done : null));
    if (typeof n === "number") done += n;
    else if (n === "EAGAIN")
      Bun.sleepSync(1); // a full pipe that another process made non-blocking
    else if (n !== "EINTR") {
      if (n === "EFBIG") dropFileSizeSignal();
      return n;
    }
  }
  return undefined;
}

/** The first `limit` bytes of an open file. Read by position, so that the shared file offset is never moved. */
export function pread(fd: number, limit: number): Uint8Array | Code {
  let bytes = new Uint8Array(Math.min(limit, 4096));
  for (let done = 0; ; ) {
    if (done === bytes.length) {
      if (done === limit) return bytes;
      const larger = new Uint8Array(Math.min(limit, bytes.length * 4));
      larger.set(bytes);
      bytes = larger;
    }
    const n = attempt(() => fs.readSync(fd, bytes, done, bytes.length - done, done));
    if (n === 0) return bytes.subarray(0, done);
    if (typeof n === "number") done += n;
    else if (n !== "EINTR") return n;
  }
}

/** The text that a descriptor with O_NONBLOCK has for us now; "" for none. */
export function readNow(fd: number): string {
  const bytes = new Uint8Array(64);
  const n = attempt(() => fs.readSync(fd, bytes));
  return typeof n === "number" ? new TextDecoder().decode(bytes.subarray(0, n)) : "";
}

/** The content of a file such as those of /proc; undefined when it cannot be read. */
export function readFile(path: string): Uint8Array | undefined {
  const fd = open(path, O.RDONLY | O.NONBLOCK);
  if (typeof fd !== "number") return undefined;
  const bytes = attempt(() => fs.readFileSync(fd));
  close(fd);
  return typeof bytes === "string" ? undefined : bytes;
}

const decoder = new TextDecoder();

/** A small text file; undefined when it cannot be read. */
export function readText(path: string): string | undefined {
  const bytes = readFile(path);
  return bytes && decoder.decode(bytes);
}

/** The target of a symbolic link; undefined when it cannot be read. */
export function readlink(path: string): string | undefined {
  try {
    return fs.readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** The names in a directory but `.` and `..`. */
export const readDirectory = (path: string): string[] | Code => attempt(() => fs.readdirSync(path));

/** Identity and kind of a file. */
export interface FileStatus {
  regular: boolean;
  directory: boolean;
  /** Permissions, the sticky bit among them. */
  mode: number;
  links: number;
  uid: number;
  dev: bigint;
  ino: bigint;
  /** When it was made, in nanoseconds; 0 where the file system does not tell. It never changes. */
  born: bigint;
}

export const fstat = (fd: number): FileStatus | Code =>
  attempt(() => fileStatus(fs.fstatSync(fd, { bigint: true })));

export const lstat = (path: string): FileStatus | Code =>
  attempt(() => present(fs.lstatSync(path, { bigint: true, throwIfNoEntry: false })));

/** As `lstat`, of the file that a link points to. */
export const stat = (path: string): FileStatus | Code =>
  attempt(() => present(fs.statSync(path, { bigint: true, throwIfNoEntry: false })));

const present = (status: import("node:fs").BigIntStats | undefined): FileStatus | Code =>
  status === undefined ? "ENOENT" : fileStatus(status);

/** The path without links; undefined when it cannot be resolved. */
export function realPath(path: string): string | undefined {
  try {
    return fs.realpathSync(path);
  } catch {
    return undefined;
  }
}

function fileStatus(status: import("node:fs").BigIntStats): FileStatus {
  return {
    regular: status.isFile(),
    directory: status.isDirectory(),
    mode: Number(status.mode & 0o7777n),
    links: Number(status.nlink),
    uid: Number(status.uid),
    dev: status.dev,
    ino: status.ino,
    born: status.birthtimeNs,
  };
}

/** Are these two the same file? */
export const sameFile = (a: FileStatus, b: FileStatus): boolean => a.ino === b.ino && a.dev === b.dev;

/**
 * An order of files, the same for every process: by age, and of two that are equally old by their numbers. A file whose age
 * is not known is before none, and none before it.
 */
export function isBefore(a: FileStatus, b: FileStatus): boolean {
  if (a.born === 0n || b.born === 0n) return false;
  if (a.born !== b.born) return a.born < b.born;
  return a.dev === b.dev ? a.ino < b.ino : a.dev < b.dev;
}

/** `f_type` of the file system that a path is on: statfs(2). */
export const fileSystemType = (path: string): bigint | Code =>
  attempt(() => fs.statfsSync(path, { bigint: true }).type & 0xffff_ffffn);
