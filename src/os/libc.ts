/**
 * The calls to libc that a lock is made of. The only file that touches `bun:ffi`.
 *
 * Every function returns what the C function returns, or the negated errno, as the kernel does: most of
 * the failures here (`EWOULDBLOCK`, `ENOENT`, `EEXIST`) are ordinary answers, and an exception for each
 * would cost more than the system call. `node:fs` is not used because it costs a start-up of its own and
 * because only libc gives us `flock(2)` anyway.
 */
import type { FFIFunction, Pointer } from "bun:ffi";

// `bun:ffi` is a module of JavaScript around this object, which has all that is used here. To load it costs a start as
// much as everything that `kernel.ts` does with it.
const { CString, dlopen, ptr, read } = ((Bun as { FFI?: typeof import("bun:ffi") }).FFI ??
  require("bun:ffi")) as typeof import("bun:ffi");

const linux = process.platform === "linux";
const arm = process.arch === "arm64";

/** The values differ between Linux and macOS, and a few between Linux on x86 and on ARM: see `fcntl(2)`. */
export const O = linux
  ? {
      RDONLY: 0,
      WRONLY: 1,
      RDWR: 2,
      CREAT: 0o100,
      EXCL: 0o200,
      NOCTTY: 0o400,
      NONBLOCK: 0o4000,
      NOFOLLOW: arm ? 0o100000 : 0o400000,
      CLOEXEC: 0o2000000,
    }
  : {
      RDONLY: 0,
      WRONLY: 1,
      RDWR: 2,
      CREAT: 0x200,
      EXCL: 0x800,
      NOCTTY: 0x20000,
      NONBLOCK: 4,
      NOFOLLOW: 0x100,
      CLOEXEC: 0x1000000,
    };

/** `flock(2)` operations; the same numbers everywhere. */
export const LOCK = { SH: 1, EX: 2, NB: 4, UN: 8 } as const;

/** The error numbers that somebody compares with. */
export const E = linux
  ? {
      EPERM: 1,
      ENOENT: 2,
      ESRCH: 3,
      EINTR: 4,
      EIO: 5,
      ENOEXEC: 8,
      EBADF: 9,
      EAGAIN: 11,
      ENOMEM: 12,
      EACCES: 13,
      EEXIST: 17,
      EISDIR: 21,
      EINVAL: 22,
      ENFILE: 23,
      EMFILE: 24,
      ENOSPC: 28,
      EROFS: 30,
      EPIPE: 32,
      ERANGE: 34,
      ENAMETOOLONG: 36,
      ENOLCK: 37,
      ELOOP: 40,
    }
  : {
      EPERM: 1,
      ENOENT: 2,
      ESRCH: 3,
      EINTR: 4,
      EIO: 5,
      ENOEXEC: 8,
      EBADF: 9,
      EAGAIN: 35,
      ENOMEM: 12,
      EACCES: 13,
      EEXIST: 17,
      EISDIR: 21,
      EINVAL: 22,
      ENFILE: 23,
      EMFILE: 24,
      ENOSPC: 28,
      EROFS: 30,
      EPIPE: 32,
      ERANGE: 34,
      ENAMETOOLONG: 63,
      ELOOP: 62,
      ENOLCK: 77,
    };

/** What libc is called. The first that loads is used: glibc, musl, macOS. */
export const LIBC_NAMES = linux
  ? ["libc.so.6", `libc.musl-${arm ? "aarch64" : "x86_64"}.so.1`]
  : ["libSystem.B.dylib"];

/** Where the bytes are, for a C function: they must stay referenced as long as it may look at them. */
export const address = (bytes: NodeJS.TypedArray, offset = 0): Pointer => ptr(bytes, offset);

/** A C function: integers and addresses go in, an integer or an address comes out. */
type CFunction = ((...args: (number | bigint | null)[]) => number) & { ptr: number };

/** Opens libc with these functions. A function that the platform lacks must not be asked for. */
export function libc<F extends Parameters<typeof dlopen>[1]>(functions: F): Record<keyof F, CFunction> {
  let failure: unknown;
  for (const name of LIBC_NAMES) {
    try {
      // Which of the two it is decides whether a failure is thrown or returned.
      const opened: object = dlopen(name, functions);
      if ("symbols" in opened) return opened.symbols as Record<keyof F, CFunction>;
      failure = opened;
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

const errnoLocation = linux ? "__errno_location" : "__error";
// Variadic arguments travel on the stack on Apple arm64, where a C function of fixed arguments looks for the
// ninth one: six fillers put `mode` where `open(2)` will find it. Elsewhere a variadic call is an ordinary one.
const appleArm = !linux && arm;
// On macOS for Intel the functions of the present `struct dirent` and `struct stat` have names of their own: stat(2).
const suffix = linux || arm ? "" : "$INODE64";
const [opendirName, readdirName] = [`opendir${suffix}`, `readdir${suffix}`];
const openArguments = appleArm
  ? (["ptr", "i32", "u64", "u64", "u64", "u64", "u64", "u64", "u64"] as const)
  : (["ptr", "i32", "u32"] as const);

const c = libc({
  [errnoLocation]: { args: [], returns: "ptr" },
  open: { args: [...openArguments], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
  flock: { args: ["i32", "i32"], returns: "i32" },
  ftruncate: { args: ["i32", "i64"], returns: "i32" },
  pwrite: { args: ["i32", "ptr", "u64", "i64"], returns: "i64" },
  pread: { args: ["i32", "ptr", "u64", "i64"], returns: "i64" },
  write: { args: ["i32", "ptr", "u64"], returns: "i64" },
  unlink: { args: ["ptr"], returns: "i32" },
  kill: { args: ["i32", "i32"], returns: "i32" },
  readlink: { args: ["ptr", "ptr", "u64"], returns: "i64" },
  access: { args: ["ptr", "i32"], returns: "i32" },
  strerror: { args: ["i32"], returns: "ptr" },
  [opendirName]: { args: ["ptr"], returns: "ptr" },
  [readdirName]: { args: ["ptr"], returns: "ptr" },
  closedir: { args: ["ptr"], returns: "i32" },
  ...statFunctions(),
});

const errnoAddress = c[errnoLocation]!() as Pointer;

/** The result of a call, or minus the errno it left. Must be the first thing after the call. */
export function checked(result: number): number {
  return result < 0 ? -read.i32(errnoAddress, 0) : result;
}

const PATH_MAX = 4096;
const pathBytes = new Uint8Array(PATH_MAX);
const pathAddress = ptr(pathBytes);
const encoder = new TextEncoder();

/** A path; as bytes where it may be one that is no UTF-8. */
export type Path = string | Uint8Array;

/** Puts a path where C can read it; false when it is longer than the kernel takes or holds a NUL. */
function usePath(path: Path): boolean {
  if (typeof path !== "string") {
    if (path.length >= PATH_MAX || path.includes(0)) return false;
    pathBytes.set(path);
    pathBytes[path.length] = 0;
    return true;
  }
  const { read, written } = encoder.encodeInto(path, pathBytes.subarray(0, PATH_MAX - 1));
  pathBytes[written] = 0;
  return read === path.length && !path.includes("\0");
}

/** `open(2)`; the mode counts where `O.CREAT` is given, less the umask. */
export function open(path: Path, flags: number, mode = 0o644): number {
  if (!usePath(path)) return -E.ENAMETOOLONG;
  return checked(
    appleArm ? c.open!(pathAddress, flags, 0, 0, 0, 0, 0, 0, mode) : c.open!(pathAddress, flags, mode),
  );
}

export const close = (fd: number): number => checked(c.close!(fd));

/** `flock(2)` as it is: a signal may end it. */
export const waitingFlock = (fd: number, operation: number): number => checked(c.flock!(fd, operation));

/** `flock(2)`, for operations that do not wait: if a signal interrupts one (NFS, FUSE) it is tried again. */
export function flock(fd: number, operation: number): number {
  for (;;) {
    const result = waitingFlock(fd, operation);
    if (result !== -E.EINTR) return result;
  }
}

export const ftruncate = (fd: number, length: number): number => checked(c.ftruncate!(fd, length));
export const unlink = (path: string): number =>
  usePath(path) ? checked(c.unlink!(pathAddress)) : -E.ENAMETOOLONG;

/** Is there a process with this pid? `kill(2)` with signal 0, which asks and sends nothing. */
export const processExists = (pid: number): boolean => checked(c.kill!(pid, 0)) !== -E.ESRCH;

/** What `access(2)` asks for. */
export const ACCESS = { X: 1, W: 2, R: 4 } as const;

/** `access(2)`. */
export const access = (path: Path, mode: number): number =>
  usePath(path) ? checked(c.access!(pathAddress, mode)) : -E.ENAMETOOLONG;

/** May files be made in this directory? */
export const writableDirectory = (path: string): boolean => access(path, ACCESS.W | ACCESS.X) === 0;

/** Writes all of the bytes at the start of the file. */
export function pwrite(fd: number, bytes: Uint8Array): number {
  let done = 0;
  while (done < bytes.length) {
    const n = checked(Number(c.pwrite!(fd, ptr(bytes, done), bytes.length - done, done)));
    if (n < 0) {
      if (-n === E.EINTR) continue;
      return n;
    }
    done += n;
  }
  return done;
}

/** Writes to a descriptor; for the few words that a command says on stdout and stderr. */
export function write(fd: number, text: string | Uint8Array): number {
  const bytes = typeof text === "string" ? encoder.encode(text) : text;
  let done = 0;
  while (done < bytes.length) {
    const n = checked(Number(c.write!(fd, ptr(bytes, done), bytes.length - done)));
    if (n === -E.EAGAIN) Bun.sleepSync(1); // a pipe that somebody else made non-blocking, and that is full
    if (n === -E.EAGAIN || n === -E.EINTR) continue;
    if (n < 0) return n;
    done += n;
  }
  return done;
}

/** The first `limit` bytes of an open file, or minus the errno. Read by position: a lock's file is never seeked. */
export function pread(fd: number, limit: number): Uint8Array | number {
  let bytes = new Uint8Array(Math.min(limit, 4096));
  let done = 0;
  for (;;) {
    if (done === bytes.length) {
      if (done === limit) return bytes;
      const larger = new Uint8Array(Math.min(limit, bytes.length * 4));
      larger.set(bytes);
      bytes = larger;
    }
    const n = checked(Number(c.pread!(fd, ptr(bytes, done), bytes.length - done, done)));
    if (n === -E.EINTR) continue;
    if (n < 0) return n;
    if (n === 0) return bytes.subarray(0, done);
    done += n;
  }
}

/** A file such as those of /proc; undefined when it cannot be read. */
export function readFile(path: string): Uint8Array | undefined {
  const fd = open(path, O.RDONLY | O.CLOEXEC | O.NONBLOCK);
  if (fd < 0) return undefined;
  const bytes = pread(fd, 1 << 26);
  close(fd);
  return typeof bytes === "number" ? undefined : bytes;
}

const decoder = new TextDecoder();

/** A small text file; undefined when it cannot be read. */
export function readText(path: string): string | undefined {
  const bytes = readFile(path);
  return bytes && decoder.decode(bytes);
}

const linkBytes = new Uint8Array(PATH_MAX);

/** Where a symbolic link points; undefined when it is none. */
export function readlink(path: string): string | undefined {
  if (!usePath(path)) return undefined;
  const n = Number(c.readlink!(pathAddress, ptr(linkBytes), PATH_MAX));
  return n < 0 ? undefined : decoder.decode(linkBytes.subarray(0, n));
}

// Where `d_name` begins in a `struct dirent`: readdir(3), dir(5).
const NAME_OFFSET = linux ? 19 : 21;

/** The names in a directory but `.` and `..`, or minus the errno. */
export function readDirectory(path: string): string[] | number {
  if (!usePath(path)) return -E.ENAMETOOLONG;
  const stream = c[opendirName]!(pathAddress);
  if (!stream) return checked(-1);
  const names: string[] = [];
  for (let entry = c[readdirName]!(stream); entry; entry = c[readdirName]!(stream)) {
    const name = new CString(entry as Pointer, NAME_OFFSET).toString();
    if (name !== "." && name !== "..") names.push(name);
  }
  c.closedir!(stream);
  return names;
}

/** Which file this is, and what kind. */
export interface FileStatus {
  regular: boolean;
  directory: boolean;
  links: number;
  uid: number;
  dev: bigint;
  ino: bigint;
}

const statBytes = new Uint8Array(256);
const statView = new DataView(statBytes.buffer);
const statAddress = ptr(statBytes);
const statLongs = new BigUint64Array(statBytes.buffer);
const emptyPath = new Uint8Array(1);

// statx(2) has one layout on every architecture. It is called by its number: musl has a function for it from 1.2.5
// on, and fstat(3) is none of its own in glibc before 2.33.
const SYS_statx = arm ? 291 : 332;
function statFunctions(): Record<string, FFIFunction> {
  if (linux) return { syscall: { args: ["i32", "i32", "ptr", "i32", "u32", "ptr"], returns: "i32" } };
  return {
    [`fstat${suffix}`]: { args: ["i32", "ptr"], returns: "i32" },
    [`lstat${suffix}`]: { args: ["ptr", "ptr"], returns: "i32" },
  };
}
const fstatDarwin = c[`fstat${suffix}`];
const lstatDarwin = c[`lstat${suffix}`];
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const STATX_BASIC_STATS = 0x7ff;

/** `fstat(2)`. */
export function fstat(fd: number): FileStatus | number {
  const result = linux
    ? checked(c.syscall!(SYS_statx, fd, ptr(emptyPath), AT_EMPTY_PATH, STATX_BASIC_STATS, statAddress))
    : checked(fstatDarwin!(fd, statAddress));
  return result < 0 ? result : fileStatus();
}

/** `lstat(2)`. */
export function lstat(path: string): FileStatus | number {
  if (!usePath(path)) return -E.ENAMETOOLONG;
  const result = linux
    ? checked(
        c.syscall!(SYS_statx, AT_FDCWD, pathAddress, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, statAddress),
      )
    : checked(lstatDarwin!(pathAddress, statAddress));
  return result < 0 ? result : fileStatus();
}

function fileStatus(): FileStatus {
  const mode = statView.getUint16(linux ? 28 : 4, true);
  const kind = mode & 0o170000;
  return {
    regular: kind === 0o100000,
    directory: kind === 0o040000,
    links: linux ? statView.getUint32(16, true) : statView.getUint16(6, true),
    uid: statView.getUint32(linux ? 20 : 16, true),
    ino: statLongs[linux ? 4 : 1]!,
    dev: linux ? statLongs[17]! : BigInt(statView.getUint32(0, true)),
  };
}

/** Are these two the same file? */
export const sameFile = (a: FileStatus, b: FileStatus): boolean => a.ino === b.ino && a.dev === b.dev;

let users: ReturnType<typeof libc<{ getpwuid: FFIFunction }>> | undefined;

/** The name of a user, as `getpwuid(3)` has it; undefined for one that has none. */
export function userName(uid: number): string | undefined {
  users ??= libc({ getpwuid: { args: ["u32"], returns: "ptr" } });
  const entry = users.getpwuid!(uid);
  return entry ? new CString(read.ptr(entry as Pointer, 0) as Pointer).toString() : undefined;
}

/** What the OS says about an error number, as `strerror(3)` has it. */
export function errorText(errno: number): string {
  return new CString(c.strerror!(errno) as Pointer).toString();
}

/** `EACCES` for 13. */
export function errorName(errno: number): string {
  // Loaded only where something has failed: it is slow to start.
  return (require("node:util") as typeof import("node:util")).getSystemErrorName(-errno);
}
