/** Exit statuses (sysexits.h(3head)) and how a command comes to one. */
import { WrongDuration } from "../../duration.ts";
import {
  CannotAcquireLock,
  CannotRun,
  isScarcity,
  LockFileError,
  LockLost,
  StoreError,
  WrongArgument,
} from "../../errors.ts";

export const EXIT = {
  OK: 0,
  /** `status`: the lock is free. Not 1, which a failing engine or shell ends with; 3 as `systemctl is-active`. */
  FREE: 3,
  /** `doctor`: locks work, but the file system is not known to be one of this machine alone. */
  NOT_LOCAL: 3,
  USAGE: 64,
  UNAVAILABLE: 69,
  SOFTWARE: 70,
  /** The program itself cannot run here (EX_OSERR): nothing is known about the lock. */
  CANNOT_RUN: 71,
  CANNOT_CREATE: 73,
  IO_ERROR: 74,
  /** The lock is held, or the time ran out. */
  TEMPORARY_FAILURE: 75,
  NO_PERMISSION: 77,
  /** The command ran longer than `--max-runtime`: as timeout(1). */
  OVERRAN: 124,
  NOT_EXECUTABLE: 126,
  NOT_FOUND: 127,
} as const;

/** The command line is wrong. */
export class UsageError extends Error {}

/** `--help` was among the options. */
export class HelpRequest extends Error {}

/** The holder is not stopped: it is not proven that the process is the one, or we may not. */
export class StopRefused extends Error {}

/** The wrapped command could not be started. */
export class CommandError extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** The exit status that an error stands for; undefined for a bug in this program. */
export function statusOfError(error: unknown): number | undefined {
  if (error instanceof UsageError || error instanceof WrongArgument || error instanceof WrongDuration)
    return EXIT.USAGE;
  if (error instanceof CannotRun) return EXIT.CANNOT_RUN;
  if (error instanceof CannotAcquireLock) return EXIT.TEMPORARY_FAILURE;
  if (error instanceof LockLost) return EXIT.SOFTWARE;
  if (error instanceof StoreError) return EXIT.UNAVAILABLE;
  if (error instanceof StopRefused) return EXIT.NO_PERMISSION;
  if (error instanceof CommandError) return error.status;
  const { code, message } = error as NodeJS.ErrnoException;
  if (isScarcity(String(code)) || (error instanceof RangeError && /out of memory/i.test(message)))
    return EXIT.CANNOT_RUN;
  if (error instanceof LockFileError)
    return error.operation === "open" && error.code !== "EIO" ? EXIT.CANNOT_CREATE : EXIT.IO_ERROR;
  return undefined;
}
