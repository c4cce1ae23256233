/**
 * The record of a lock's holder, on disk, and whether its process lives.
 *
 * The record is for people, and for `stop`. It never decides whether a lock is held: any process that may write to the
 * file can write anything into it.
 */
import type { Holder, Mode } from "./errors.ts";
import { bootId, hostName, pidNamespace, uptime } from "./os/host.ts";
import { isVisible, processExists, startTime } from "./os/processes.ts";

export type { Holder, Mode } from "./errors.ts";

/** The second line of a lock file. Never argv or the environment: they hold secrets. */
export interface HolderRecord {
  version: 1;
  host: string;
  /** Kernel's id of this boot: a pid and a start time mean nothing after the next one. */
  boot?: string | undefined;
  /** Inode of the pid namespace: a pid means nothing in another one. */
  pidns?: string | undefined;
  /** When the process started: clock ticks since boot, see proc_pid_stat(5). */
  started?: string | undefined;
  /** ISO 8601, for people: the clock may have been set since. */
  acquired: string;
  /** When the lock was taken, in seconds since boot. */
  uptime?: number | undefined;
  mode: Mode;
  label?: string | undefined;
  /** How many slots the lock has of which this is one. */
  slots?: number | undefined;
  /** The lock's name, where the file's name is too short for it. */
  name?: string | undefined;
  /** The pid of the wrapped command, or of the process that keeps the lock after its end. */
  command?: number | undefined;
  /** `command`, or the holder where there is none, only keeps the lock: up to this time, ISO 8601, or until it is `stopped`. */
  until?: string | undefined;
  /** The holder has the lock for too long after so many seconds. */
  overdue?: number | undefined;
}

/** The part of a record that identifies a process; the same for the life of a process. */
type Identity = Pick<HolderRecord, "host" | "boot" | "pidns" | "started">;

let identity: Identity | undefined;

/** Identifies this process, so that it can be told from a later one with the same pid. */
export function thisProcess(): Identity {
  identity ??= { host: hostName(), boot: bootId(), pidns: pidNamespace(), started: startTime("self") };
  return identity;
}

/** A longer label is cut: the whole of a record must be read to name its process. */
const LABEL_MAX = 1024;

/** The record of this process as the holder of a lock, from now on. */
export function newRecord({
  mode,
  label,
  slots,
  until,
  overdue,
}: Pick<HolderRecord, "mode" | "label" | "slots" | "until" | "overdue">): HolderRecord {
  return { version: 1, ...thisProcess(), ...acquiredNow(), mode, label: cut(label), slots, until, overdue };
}

/** The moment in which a lock is taken, for its record. */
export function acquiredNow(): Pick<HolderRecord, "acquired" | "uptime"> {
  return { acquired: new Date().toISOString(), uptime: uptime() };
}

/**
 * The time in so many milliseconds as a record has it, ISO 8601; `stopped` without end, and beyond the times that a date
 * can have.
 */
export function untilAfter(milliseconds = Number.POSITIVE_INFINITY): string {
  const time = new Date(Date.now() + milliseconds);
  return Number.isNaN(time.getTime()) ? "stopped" : time.toISOString();
}

/** The process of a holder that lives, as far as it is known: the command, where the process that took the lock is gone. */
export const workingPid = ({ pid, alive, commandPid }: Holder): number | undefined =>
  alive === false ? (commandPid ?? pid) : pid;

/**
 * How long the holder has had the lock, in milliseconds. Counted from boot where the lock was taken in this boot and this
 * pid namespace; else by the two clocks of the wall, either of which may have been set.
 */
export function heldFor({ acquiredAt, acquiredUptime }: Holder): number | undefined {
  if (acquiredUptime !== undefined) return Math.max(0, uptime() - acquiredUptime) * 1000;
  return acquiredAt && Math.max(0, Date.now() - acquiredAt.getTime());
}

/** Never between the halves of a surrogate pair. */
const cut = (label: string | undefined): string | undefined =>
  label === undefined || label.length <= LABEL_MAX ? label : label.slice(0, LABEL_MAX).toWellFormed();

const encoder = new TextEncoder();

/** `pid_t` is a signed 32-bit integer. */
const PID_MAX = 0x7fff_ffff;

/** The bytes of a lock file: the pid alone on line 1, as every pidfile tool reads it, and the record on line 2. */
export function encodeRecord(record: HolderRecord): Uint8Array {
  return encoder.encode(`${process.pid}\n${JSON.stringify(record)}\n`);
}

/** Reads a record back. Any content gives a holder; fields that cannot be read are undefined. */
export function decodeRecord(text: string): Holder {
  return holderByRecord(parseLockFile(text));
}

/** The content of a lock file. It may be forged. */
export interface WrittenRecord {
  pid?: number | undefined;
  record: Partial<HolderRecord>;
}

export function parseLockFile(text: string): WrittenRecord {
  const [first = "", second = ""] = text.split("\n", 2);
  const pid = /^\d{1,10}$/.test(first.trim()) ? Number(first) : 0;
  return pid < 1 || pid > PID_MAX ? { record: {} } : { pid, record: parseRecord(second) };
}

/** @param startedAt gives the start time of a process */
export function holderByRecord(
  { pid, record }: WrittenRecord,
  startedAt: (pid: number) => string | undefined = startTime,
): Holder {
  if (pid === undefined) return {};
  const acquiredAt = record.acquired === undefined ? undefined : new Date(record.acquired);
  return {
    pid,
    alive: isAlive(pid, record, startedAt),
    commandPid: record.command,
    until: record.until,
    overdueAfter: record.overdue,
    host: record.host,
    acquiredAt: acquiredAt && !Number.isNaN(acquiredAt.getTime()) ? acquiredAt : undefined,
    acquiredUptime: isFromHere(record) ? record.uptime : undefined,
    mode: record.mode === "shared" ? "shared" : record.mode === "exclusive" ? "exclusive" : undefined,
    label: record.label,
    slots: record.slots,
  };
}

/** The fields of a record that have the type they should have. */
function parseRecord(line: string): Partial<HolderRecord> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return {};
  }
  if (typeof value !== "object" || value === null) return {};
  const fields = value as Record<string, unknown>;
  const text = (key: string) => (typeof fields[key] === "string" ? fields[key] : undefined);
  const measure = (key: string) => {
    const value = fields[key];
    return typeof value === "number" && value >= 0 ? value : undefined;
  };
  const count = (key: string) =>
    Number.isSafeInteger(fields[key]) && (fields[key] as number) > 0 ? (fields[key] as number) : undefined;
  return {
    host: text("host"),
    boot: text("boot"),
    pidns: text("pidns"),
    started: text("started"),
    acquired: text("acquired"),
    uptime: measure("uptime"),
    overdue: measure("overdue"),
    mode: text("mode") as Mode | undefined,
    label: text("label"),
    slots: count("slots"),
    name: text("name"),
    command: count("command"),
    until: text("until"),
  };
}

/** Was the record written in this boot and this pid namespace? Then what it counts means something here. */
function isFromHere({ boot, pidns }: Partial<HolderRecord>): boolean {
  const here = thisProcess();
  return boot !== undefined && boot === here.boot && pidns === here.pidns;
}

/** Is this pid the process that wrote the record? Undefined when a pid from where it was written means nothing here. */
function isAlive(
  pid: number,
  record: Partial<HolderRecord>,
  startedAt: (pid: number) => string | undefined,
): boolean | undefined {
  const here = thisProcess();
  if (record.boot !== here.boot) return record.host === here.host ? false : undefined;
  if (record.pidns !== here.pidns) return undefined;
  const started = startedAt(pid);
  if (started !== undefined) return record.started === undefined ? undefined : record.started === started;
  // Another user's process may be hidden from us, a zombie is not.
  return processExists(pid) && !isVisible(pid) ? undefined : false;
}
