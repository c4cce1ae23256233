/** Taking the lock as flock(1) does: the file as it is opened there, the wait, and locks of fcntl(2). */

import { Alarm } from "../../os/flock.ts";
import {
  ACCESS,
  access,
  address,
  checked,
  close,
  E,
  errorText,
  LOCK,
  libc,
  O,
  open,
  waitingFlock,
} from "../../os/libc.ts";
import { interruptible } from "../../os/signals.ts";
import { isInherited } from "../../os/spawn.ts";

/** Exit statuses: sysexits.h(3head). */
export const EX = {
  OK: 0,
  FAILURE: 1,
  USAGE: 64,
  DATAERR: 65,
  NOINPUT: 66,
  UNAVAILABLE: 69,
  OSERR: 71,
  CANTCREAT: 73,
} as const;

/** The program ends with this status, and says why on stderr where there is something to say. */
export class Failure extends Error {
  constructor(
    readonly status: number,
    message?: string,
    /** Whether to name `--help`. */
    readonly help = false,
  ) {
    super(message);
  }
}

/** Text as C has it: each character is a byte, whatever the bytes mean. */
export const bytesOf = (text: string): Uint8Array => Uint8Array.from(text, (byte) => byte.charCodeAt(0));

/** What the command line says of the lock, and of the command. */
export interface Options {
  operation: number;
  nonblocking: boolean;
  /** Seconds. */
  timeout: number | undefined;
  conflict: number;
  close: boolean;
  noFork: boolean;
  verbose: boolean;
  /** By fcntl(2), for this range of bytes. */
  fcntl: boolean;
  start: bigint;
  length: bigint;
  fd: number | undefined;
}

/** The file that is locked, opened as flock(1) opens it. */
export class File {
  readonly #path: Uint8Array;
  #flags: number;

  constructor(
    readonly name: string,
    { fcntl, operation }: Options,
  ) {
    this.#path = bytesOf(name);
    // An exclusive lock by fcntl(2) needs a descriptor that can write.
    this.#flags = fcntl && operation === LOCK.EX ? O.WRONLY : O.RDONLY;
  }

  /** @throws {Failure} */
  open(): number {
    const flags = O.NOCTTY | O.CLOEXEC;
    let fd = interruptible(() => open(this.#path, this.#flags | O.CREAT | flags, 0o666)); // a FIFO waits
    if (fd === -E.EISDIR) {
      this.#flags = O.RDONLY;
      fd = open(this.#path, flags);
    }
    if (fd >= 0) return fd;
    const status = ([E.ENOMEM, E.EMFILE, E.ENFILE] as number[]).includes(-fd)
      ? EX.OSERR
      : ([E.EROFS, E.ENOSPC] as number[]).includes(-fd)
        ? EX.CANTCREAT
        : EX.NOINPUT;
    throw new Failure(status, `cannot open lock file ${this.name}: ${errorText(-fd)}`);
  }

  /**
   * NFS makes fcntl(2) locks of flock(2) ones, and so an exclusive lock of a file that is open for reading fails there:
   * opens it for both.
   * @returns the new descriptor, or minus an errno where that does not help
   */
  reopen(fd: number, errno: number): number {
    if (this.#flags === O.RDWR) return -errno;
    const allowed = access(this.#path, ACCESS.R | ACCESS.W);
    if (allowed < 0) return allowed;
    close(fd);
    this.#flags = O.RDWR;
    const reopened = this.open();
    return this.#flags === O.RDWR ? reopened : -E.EISDIR;
  }
}

/**
 * Takes the lock, or gives it up where that is asked for.
 * @returns the descriptor that has it: another one where the file had to be opened anew
 */
export function acquire(fd: number, file: File | undefined, options: Options): number {
  const { operation, timeout, conflict, verbose } = options;
  const none = timeout !== undefined && Math.trunc(timeout * 1e6) === 0; // a timer of 0 would be none
  const nonblocking = options.nonblocking || none;
  if (timeout !== undefined && !none && !(timeout > 0 && timeout < 2 ** 63))
    throw new Failure(EX.OSERR, `cannot set up timer: ${errorText(E.EINVAL)}`);
  const lock = options.fcntl ? ofdLock(options) : waitingFlock;
  if (!file && !isInherited(fd)) throw new Failure(EX.DATAERR, `${fd}: ${errorText(E.EBADF)}`);
  let lockFd = fd;
  using waits = new DisposableStack();
  let alarm: Alarm | undefined;
  for (;;) {
    let result = lock(lockFd, operation | LOCK.NB);
    if (result === -E.EAGAIN && !nonblocking) {
      if (timeout) alarm ??= waits.use(new Alarm(timeout));
      result = interruptible(() => lock(lockFd, operation), alarm?.mask);
    }
    if (result === 0) return lockFd;
    if (result === -E.EINTR) {
      if (!alarm?.expired) continue;
      throw new Failure(conflict, verbose ? "timeout while waiting to get lock" : "");
    }
    if (result === -E.EAGAIN || result === -E.EACCES)
      throw new Failure(conflict, verbose ? "failed to get lock" : "");
    let errno = -result;
    if ((errno === E.EIO || errno === E.EBADF) && file && operation !== LOCK.SH) {
      const reopened = file.reopen(lockFd, errno);
      if (reopened >= 0) {
        lockFd = reopened;
        continue;
      }
      errno = -reopened;
    }
    const status = errno === E.ENOLCK || errno === E.ENOMEM ? EX.OSERR : EX.DATAERR;
    throw new Failure(status, `${file?.name ?? fd}: ${errorText(errno)}`);
  }
}

const F_OFD_SETLK = 37;
const F_OFD_SETLKW = 38;
const LOCK_TYPES: Record<number, number> = { [LOCK.SH]: 0, [LOCK.EX]: 1, [LOCK.UN]: 2 };

/** Open file description locks, fcntl(2), in the shape of `flock`. */
function ofdLock({ start, length }: Options): (fd: number, operation: number) => number {
  if (process.platform !== "linux") {
    throw new Failure(
      EX.UNAVAILABLE,
      "--fcntl, --start and --length need open file description locks, which only Linux has",
    );
  }
  const { fcntl } = libc({ fcntl: { args: ["i32", "i32", "ptr"], returns: "i32" } });
  return (fd, operation) => {
    const request = new BigInt64Array(4); // struct flock: type and whence (SEEK_SET), start, length, pid
    new Int16Array(request.buffer)[0] = LOCK_TYPES[operation & ~LOCK.NB]!;
    request[1] = BigInt.asIntN(64, start);
    request[2] = BigInt.asIntN(64, length);
    return checked(fcntl(fd, operation & LOCK.NB ? F_OFD_SETLK : F_OFD_SETLKW, address(request)));
  };
}
