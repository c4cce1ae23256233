/** Takes the lock as flock(1) does: opens the file, waits, and knows the locks of fcntl(2). */
import { isInherited } from "../../os/descriptors.ts";
import { errorText } from "../../os/errors.ts";
import { ACCESS, access, close, O, open } from "../../os/files.ts";
import { Alarm, LOCK, needsWriting, rangeLock, waitingFlock } from "../../os/flock.ts";
import type { Code } from "../../os/libc.ts";
import { interruptible } from "../../os/signals.ts";

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

/** Ends the program with this status, and a message on stderr where there is one. */
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

/** Text as in C: each character is a byte, in any encoding. */
export const bytesOf = (text: string): Uint8Array => Uint8Array.from(text, (byte) => byte.charCodeAt(0));

/** The options of the lock, and of the command. */
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
export class TargetFile {
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
    const flags = O.NOCTTY;
    let fd = interruptible(() => open(this.#path, this.#flags | O.CREAT | flags, 0o666)); // a FIFO waits
    if (fd === "EISDIR") {
      this.#flags = O.RDONLY;
      fd = open(this.#path, flags);
    }
    if (typeof fd === "number") return fd;
    const status = ["ENOMEM", "EMFILE", "ENFILE"].includes(fd)
      ? EX.OSERR
      : ["EROFS", "ENOSPC"].includes(fd)
        ? EX.CANTCREAT
        : EX.NOINPUT;
    throw new Failure(status, `cannot open lock file ${this.name}: ${errorText(fd)}`);
  }

  /**
   * Opens the file for reading and writing: `needsWriting`.
   * @returns the new descriptor, or the code of the failure where that does not help
   */
  reopen(fd: number, failure: Code): number | Code {
    if (this.#flags === O.RDWR) return failure;
    const denied = access(this.#path, ACCESS.R | ACCESS.W);
    if (denied !== undefined) return denied;
    close(fd); // first, so that the descriptor's number stays
    this.#flags = O.RDWR;
    const reopened = this.open();
    return this.#flags === O.RDWR ? reopened : "EISDIR";
  }
}

/**
 * Takes the lock, or gives it up with `--unlock`.
 * @returns the descriptor that has the lock: another one where the file had to be reopened
 */
export function acquire(fd: number, file: TargetFile | undefined, options: Options): number {
  const { operation, timeout, conflict, verbose } = options;
  const none = timeout !== undefined && Math.trunc(timeout * 1e6) === 0; // setitimer(2) takes 0 for never
  const nonblocking = options.nonblocking || none;
  if (timeout !== undefined && !none && !(timeout > 0 && timeout < 2 ** 63))
    throw new Failure(EX.OSERR, `cannot set up timer: ${errorText("EINVAL")}`);
  const lock = options.fcntl ? ofdLock(options) : waitingFlock;
  if (!file && !isInherited(fd)) throw new Failure(EX.DATAERR, `${fd}: ${errorText("EBADF")}`);
  let lockFd = fd;
  using waits = new DisposableStack();
  let alarm: Alarm | undefined;
  for (;;) {
    let failure = lock(lockFd, operation | LOCK.NB);
    if (failure === "EAGAIN" && !nonblocking) {
      if (timeout) alarm ??= waits.use(new Alarm(timeout));
      failure = interruptible(() => lock(lockFd, operation), alarm?.mask);
    }
    if (failure === undefined) return lockFd;
    if (failure === "EINTR") {
      if (!alarm?.expired) continue;
      throw new Failure(conflict, verbose ? "timeout while waiting to get lock" : "");
    }
    if (failure === "EAGAIN" || failure === "EACCES")
      throw new Failure(conflict, verbose ? "failed to get lock" : "");
    if (needsWriting(failure) && file && operation !== LOCK.SH) {
      const reopened = file.reopen(lockFd, failure);
      if (typeof reopened === "number") {
        lockFd = reopened;
        continue;
      }
      failure = reopened;
    }
    const status = failure === "ENOLCK" || failure === "ENOMEM" ? EX.OSERR : EX.DATAERR;
    throw new Failure(status, `${file?.name ?? fd}: ${errorText(failure)}`);
  }
}

/** @throws {Failure} where the system has no such locks */
function ofdLock({ start, length }: Options): typeof waitingFlock {
  const lock = rangeLock(start, length);
  if (lock !== undefined) return lock;
  throw new Failure(
    EX.UNAVAILABLE,
    "--fcntl, --start and --length need open file description locks, which only Linux has",
  );
}
