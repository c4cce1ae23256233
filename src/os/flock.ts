/**
 * flock(2) on this thread: locks of an open file, not of a process. A lock lasts until the last descriptor of that open
 * file is closed, in whichever process, or until one of them unlocks.
 */
import { SIGALRM, setTimer } from "./interval-timer.ts";
import { address, type Code, failureOf, libc, linux } from "./libc.ts";
import { maskAtStart } from "./signal-mask.ts";
import { interruptWith, signalSet } from "./signal-sets.ts";

/** Operations; the same numbers everywhere. */
export const LOCK = { SH: 1, EX: 2, NB: 4, UN: 8 } as const;

const c = libc({ flock: { args: ["i32", "i32"], returns: "i32" } });

/** flock(2) as it is: a signal may end it, with `EINTR`. */
export const waitingFlock = (fd: number, operation: number): Code | undefined =>
  failureOf(c.flock(fd, operation));

/** flock(2) for operations that do not wait: an interrupted one (NFS, FUSE) is tried again. */
export function flock(fd: number, operation: number): Code | undefined {
  for (;;) {
    const failure = waitingFlock(fd, operation);
    if (failure !== "EINTR") return failure;
  }
}

/**
 * Did an exclusive lock fail because the file is open for reading only? NFS turns flock(2) into locks of fcntl(2), which
 * need a descriptor that can write. flock(1) opens the file for writing then.
 */
export const needsWriting = (failure: Code): boolean => failure === "EBADF" || failure === "EIO";

const F_OFD_SETLK = 37;
const F_OFD_SETLKW = 38;
const LOCK_TYPES: Record<number, number> = { [LOCK.SH]: 0, [LOCK.EX]: 1, [LOCK.UN]: 2 };

/** Open file description locks on a range of bytes, in the shape of `flock`; undefined but on Linux: fcntl(2). */
export function rangeLock(start: bigint, length: bigint): typeof waitingFlock | undefined {
  if (!linux) return undefined;
  const { fcntl } = libc({ fcntl: { args: ["i32", "i32", "ptr"], returns: "i32" } });
  return (fd, operation) => {
    const request = new BigInt64Array(4); // struct flock: type and whence (SEEK_SET), start, length, pid
    new Int16Array(request.buffer)[0] = LOCK_TYPES[operation & ~LOCK.NB]!;
    request[1] = BigInt.asIntN(64, start);
    request[2] = BigInt.asIntN(64, length);
    return failureOf(fcntl(fd, operation & LOCK.NB ? F_OFD_SETLK : F_OFD_SETLKW, address(request)));
  };
}

/** The largest time that every system's setitimer(2) takes, in seconds. */
const LONGEST = 100_000_000;
/** Microseconds. The first signal may come just before the system call that it is to interrupt, so it is repeated. */
const REPEAT = 5000n;

/** Limits a wait on this thread: interruptible system calls end with `EINTR` once the time is over. */
export class Alarm implements Disposable {
  readonly #deadline: number;
  readonly #handler = interruptWith(SIGALRM);
  /** The signal mask during the wait: SIGALRM must get through, even if it was blocked when we were started. */
  readonly mask = maskAtStart.map((bits, i) => bits & ~signalSet(SIGALRM)[i]!);

  /** @param seconds more than 0 */
  constructor(seconds: number) {
    this.#deadline = performance.now() + seconds * 1000;
    setTimer(BigInt(Math.ceil(Math.min(seconds, LONGEST) * 1e6)), REPEAT);
  }

  get expired(): boolean {
    return performance.now() >= this.#deadline;
  }

  [Symbol.dispose](): void {
    setTimer(0n, 0n);
    this.#handler[Symbol.dispose]();
  }
}
