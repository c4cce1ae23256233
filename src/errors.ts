/** Every error that a caller of this library can catch. Serves all layers, so it imports nothing. */

/** How a lock is held: by one, or by many at once. */
export type Mode = "exclusive" | "shared";

/** The holder of a lock. Fields that are not known are undefined. */
export interface Holder {
  /** Process id, as the record has it: the wrapper's for a wrapped command. */
  pid?: number | undefined;
  /** Is that process the one that wrote the record, and alive? Undefined where that cannot be known from here. */
  alive?: boolean | undefined;
  /** The process that took the lock and its command are gone: `pid` is a process that they left, and that has the lock. */
  left?: boolean | undefined;
  /** Process id of the wrapped command. */
  commandPid?: number | undefined;
  /** `commandPid` runs no command and only keeps the lock: up to this time, ISO 8601, or until it is `"stopped"`. */
  until?: string | undefined;
  /** It is to have the lock for so many seconds at most: its `--overdue`. */
  overdueAfter?: number | undefined;
  /** Host name. */
  host?: string | undefined;
  /** When the lock was taken, by the clock of then. */
  acquiredAt?: Date | undefined;
  /** When it was taken, in seconds since this boot; undefined where it was taken elsewhere, or before this boot. */
  acquiredUptime?: number | undefined;
  mode?: Mode | undefined;
  /** The text given with `--label` or `label`. */
  label?: string | undefined;
  /** How many slots the lock has of which this is one. */
  slots?: number | undefined;
  /** The fencing token, where the store has one. */
  token?: string | undefined;
  /** The process's user: asked of the OS by `exclusive list` and `exclusive status`, as the command line is. */
  user?: string | undefined;
  /** The command line of the command, else of the process, quoted as a shell needs it. */
  commandLine?: string | undefined;
}

/** Describes a lock that could not be acquired. */
export interface Refusal {
  /** The lock's name. */
  lock: string;
  /** Path of the lock file; with a remote store, the URL without its secrets. */
  lockfile: string;
  /** The holder, as far as the record and the OS tell. */
  holder?: Holder | undefined;
}

/** The lock is held, by another process or by this one. `code` is `"ELOCKED"`. */
export class CannotAcquireLock extends Error implements Refusal {
  override readonly name: string = "CannotAcquireLock";
  /** The lock's name. */
  readonly lock: string;
  readonly lockfile: string;
  readonly holder: Holder | undefined;
  readonly code: string = "ELOCKED";

  /** @internal */
  constructor(refusal: Refusal, message?: string) {
    super(message ?? inWords(refusal));
    this.lock = refusal.lock;
    this.lockfile = refusal.lockfile;
    this.holder = refusal.holder;
  }
}

function inWords({ lock, holder }: Refusal): string {
  const { pid, alive, until } = holder ?? {};
  if (alive && pid === process.pid && until === undefined)
    return `'${printable(lock)}' is already locked by this process (pid ${pid})`;
  return `Another '${printable(lock)}' process is already running${pid ? ` (pid ${pid})` : ""}.`;
}

/** The lock is held by what waits for this process: a wait would never end. The message has the reason. */
export class EndlessWait extends CannotAcquireLock {
  override readonly name = "EndlessWait";
  /** @internal @param inherited this process runs under the lock already: what was to wait may run at once */
  constructor(
    refusal: Refusal,
    reason: string,
    readonly inherited: boolean,
  ) {
    super(refusal, reason);
  }
}

/** The lock was still held when the time given to `acquire()` ran out. */
export class LockTimeout extends CannotAcquireLock {
  override readonly name = "LockTimeout";
  override readonly code = "ETIMEDOUT";
  /** @internal @param limit the time given, as text for people */
  constructor(refusal: Refusal, limit: string) {
    const pid = refusal.holder?.pid;
    super(
      refusal,
      `'${printable(refusal.lock)}' is still locked after ${limit}${pid ? ` (by pid ${pid})` : ""}.`,
    );
  }
}

/** A newer waiter has taken this one's place: `latest`. */
export class Superseded extends CannotAcquireLock {
  override readonly name = "Superseded";
  constructor(refusal: Refusal) {
    super(refusal, `'${printable(refusal.lock)}': a newer waiter has taken this one's place`);
  }
}

/** Ownership of a lock with a lease can no longer be proven: another host may own it from then on. */
export class LockLost extends Error {
  override readonly name = "LockLost";
  readonly code = "ELOCKLOST";
}

/** The lock file cannot be made, opened or locked. */
export class LockFileError extends Error {
  override readonly name = "LockFileError";
  /**
   * @internal
   * @param code what went wrong, as `errno(3)` names it: `EACCES`, `ENOSPC`, …
   * @param operation the system call
   * @param path the file concerned
   */
  constructor(
    message: string,
    readonly code: string,
    readonly operation: string,
    readonly path: string,
  ) {
    super(message);
  }
}

/** The store's server is unreachable, refuses us, or violates its protocol. */
export class StoreError extends Error {
  override readonly name = "StoreError";
  readonly code = "ESTORE";
  /** True when the same request may succeed later: the server is away, or may have forgotten a holder. */
  readonly temporary: boolean;

  /** @internal */
  constructor(message: string, { temporary = false, cause }: { temporary?: boolean; cause?: unknown } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.temporary = temporary;
  }
}

/** An argument that a caller got wrong. The class tells it from a `TypeError` of the engine, which is a bug. */
export class WrongArgument extends TypeError {}

/** The program cannot run here: memory, threads or a system call is missing. Nothing is known about any lock. */
export class CannotRun extends Error {
  override readonly name = "CannotRun";
}

/** Codes of what runs out, or is withheld, before a lock is looked at: open(2), fork(2), pthread_create(3). */
const SCARCE: readonly string[] = ["EAGAIN", "ENOMEM", "EMFILE", "ENFILE"];

/** Does this code say that memory, threads or descriptors ran out? Then it is no answer about the file or command. */
export const isScarcity = (code: string): boolean => SCARCE.includes(code);

/** Text of unknown origin made fit for a terminal: control characters and the like as `\xNN` or `\u{…}`. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0)!;
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
  });
}

/** One line of JSON that is safe on a terminal: C1 controls and format characters are escaped too. */
export function jsonLine(value: unknown, replacer?: (key: string, value: unknown) => unknown): string {
  return JSON.stringify(value, replacer).replace(/[\x7f-\x9f\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from({ length: character.length }, (_, i) => {
      return `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`;
    }).join(""),
  );
}
