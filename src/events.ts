/**
 * What happens to a lock: the events, their names in JSON, and the file that they are appended to.
 *
 * The record is informational: no locking decision depends on it. So a failure of the file costs the record, and never
 * the work or its status.
 */
import { type Holder, jsonLine, printable } from "./errors.ts";
import { appendLine } from "./os/append.ts";
import { write } from "./os/files.ts";

/** A holder in JSON. */
export type HolderJson = Omit<Holder, "acquiredAt"> & {
  /** ISO 8601. */
  acquiredAt?: string | undefined;
};

/** A holder before it is JSON, or after. */
type AnyHolder = Holder | HolderJson | null | undefined;

/** How a command ended: by itself, or by a signal. Neither is known for a lock that the library released. */
interface EndingFields {
  exitCode?: number | undefined;
  /** The signal's name, `SIGTERM`. */
  signal?: string | undefined;
}

interface WaitFields {
  /** Seconds from the start of the program until now, or until the lock was acquired. */
  waitSeconds: number;
}

interface RunFields extends EndingFields {
  waitSeconds?: number | undefined;
  /** Seconds for which the lock has been held. */
  holdSeconds: number;
  commandPid?: number | undefined;
  reason?: string | undefined;
}

interface HeldFields extends WaitFields {
  holder?: AnyHolder;
  reason?: string | undefined;
}

interface PlaceFields {
  lockfile: string;
  holder?: AnyHolder;
  reason?: string | undefined;
}

/** The fields of each event. Each event has `time`, `event`, `name`, `pid` and `label` besides. */
export interface EventFields {
  /** The lock is held, and this run waits for it. Reported again every ten minutes. */
  waiting: HeldFields;
  acquired: WaitFields & { lockfile: string; token?: string | undefined };
  /** The lock was held, or the time ran out: the command has not run. Or the store failed: `reason`. */
  refused: HeldFields;
  /** The lock was held, and `--if-held skip` or `coalesce` ended the run with 0. */
  skipped: HeldFields;
  /** A newer waiter took this one's place. */
  superseded: HeldFields;
  /** The lock was held, and its holder has run longer than `--overdue`. */
  overdue: HeldFields;
  /** The command ran longer than `--max-runtime`, and is being stopped. `released` or `orphaned` follows. */
  overran: RunFields;
  /** The lock was released. */
  released: RunFields;
  /** The command ended, but processes that it started still hold the lock. It may be the last event of a run. */
  orphaned: Partial<RunFields> & {
    /** Those that the kernel names. */
    pids?: readonly number[] | undefined;
  };
  /** The lock file was removed while the lock was held, and made and locked again. */
  retaken: PlaceFields;
  /** The lock file was removed while the lock was held: another process has the lock too, or no file can be made. */
  split: PlaceFields;
  /** Ownership could no longer be proven, and the command was stopped; `left` could not be. */
  lost: RunFields & { left?: number[] | undefined };
  /** `exclusive stop` or `--if-held replace` ended these processes; `left` still hold the lock. */
  stopped: { stopped: number[]; left: number[] };
}

export type EventName = keyof EventFields;

/** An event of one kind. */
type EventOf<E extends EventName> = {
  /** ISO 8601, UTC. */
  time: string;
  event: E;
  /** The lock's name. */
  name: string;
  /** The process that reports it: for a wrapped command, the wrapper. */
  pid: number;
  label?: string | undefined;
} & EventFields[E];

/** One line of `--log-file` and of `--log-format json`, and what `--on-event` gets on stdin. */
export type LockEvent = { [E in EventName]: EventOf<E> }[EventName];

/** Makes an event that happens now. */
export function newEvent<E extends EventName>(
  event: E,
  name: string,
  fields: EventFields[E],
  label?: string,
): LockEvent {
  const time = new Date().toISOString();
  return { time, event, name, pid: process.pid, ...fields, label } as LockEvent;
}

/** A line is shorter than this, whatever the name and label: it can be written to a pipe in one piece. */
const LINE_MAX = 4096;

/** A longer name is cut in the record. */
const NAME_MAX = 255;

/** The name of a lock as the record has it. */
export const recordedName = (name: string): string => cut(name, NAME_MAX);

const encoder = new TextEncoder();

/** One line of JSON, with a newline at its end. Long texts are cut. */
export function eventLine(event: LockEvent): string {
  let line = "";
  for (const most of [1024, 256, 64, 16]) {
    line = `${jsonLine(event, (key, value) => {
      return typeof value === "string" ? cut(value, key === "name" ? NAME_MAX : Math.max(most, 24)) : value;
    })}\n`;
    if (encoder.encode(line).length < LINE_MAX) break;
  }
  return line;
}

const cut = (text: string, most: number): string =>
  text.length <= most ? text : `${text.slice(0, most - 1).toWellFormed()}…`;

/** Files that could not be written: each is reported once. */
const reported = new Set<string>();

/** Appends the event to the file. A failure is reported once on stderr. */
export function appendEvent(file: string, event: LockEvent): void {
  const failure = appendLine(file, encoder.encode(eventLine(event)));
  if (failure === undefined || reported.has(file)) return;
  reported.add(file);
  write(2, `exclusive: cannot write to the log file ${printable(file)} (${failure}): events are missing\n`);
}
