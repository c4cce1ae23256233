/**
 * Who holds a lock: the record on disk, and what the OS says of that process.
 *
 * The record is for people, and for `stop`. It never decides whether a lock is held: anybody who can write
 * the file can write anything into it.
 */
import { processExists, readlink, readText } from "./os/libc.ts";

/** How a lock is held: by one, or by many at once. */
export type Mode = "exclusive" | "shared";

/** Who holds a lock. What is not known is undefined. */
export interface Holder {
  /** Process id, as the record has it: the wrapper's for a wrapped command. */
  pid?: number | undefined;
  /** Is that process the one that wrote the record, and alive? Undefined where it cannot be known from here. */
  alive?: boolean | undefined;
  /** Process id of the wrapped command. */
  commandPid?: number | undefined;
  /** Host name. */
  host?: string | undefined;
  /** When the lock was taken. */
  acquiredAt?: Date | undefined;
  mode?: Mode | undefined;
  /** The text given with `--label` or `label`. */
  label?: string | undefined;
  /** How many slots the lock has of which this is one. */
  slots?: number | undefined;
  /** The fencing token, where the store has one. */
  token?: string | undefined;
  /** Whose process it is: asked of the OS by `exclusive list` and `exclusive status`, as the command line is. */
  user?: string | undefined;
  /** The command line of the command, else of the process, its arguments parted by spaces. */
  commandLine?: string | undefined;
}

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
  /** ISO 8601. */
  acquired: string;
  mode: Mode;
  label?: string | undefined;
  /** How many slots the lock has of which this is one. */
  slots?: number | undefined;
  /** The lock's name, where the file's name is too short for it. */
  name?: string | undefined;
  /** The wrapped command's pid. */
  command?: number | undefined;
}

/** What of a record tells processes apart; the same for the life of a process. */
type Identity = Pick<HolderRecord, "host" | "boot" | "pidns" | "started">;

let identity: Identity | undefined;

/** This process, so that it can be told from a later one with the same pid. */
export function thisProcess(): Identity {
  identity ??= {
    host: readText("/proc/sys/kernel/hostname")?.trim() ?? hostname(),
    boot: readText("/proc/sys/kernel/random/boot_id")?.trim(),
    pidns: /\d+/.exec(readlink("/proc/self/ns/pid") ?? "")?.[0],
    started: startTime("self"),
  };
  return identity;
}

function hostname(): string {
  return (require("node:os") as typeof import("node:os")).hostname();
}

/**
 * When a process started; undefined when there is no such process, when it has ended and only waits for its parent
 * to ask how (a zombie holds nothing), or when there is no way to ask.
 */
export function startTime(pid: number | "self"): string | undefined {
  if (process.platform === "linux") {
    const stat = readText(`/proc/${pid}/stat`);
    const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields === undefined || ENDED.has(fields[0]!) ? undefined : fields[19];
  }
  const { stdout } = Bun.spawnSync(
    ["/bin/ps", "-o", "stat=", "-o", "lstart=", "-p", String(pid === "self" ? process.pid : pid)],
    { env: { LC_ALL: "C", TZ: "UTC0" } }, // two processes must read the same time alike
  );
  const [, state, started] = /^(\S+)\s+(.+?)\s*$/.exec(stdout.toString().trim()) ?? [];
  return state?.startsWith("Z") ? undefined : started;
}

/** States of a process that is no more: zombie, dead, proc_pid_stat(5). */
const ENDED = new Set(["Z", "X", "x"]);

/** The record of this process, which holds a lock from now on. */
export function newRecord({
  mode,
  label,
  slots,
}: Pick<HolderRecord, "mode" | "label" | "slots">): HolderRecord {
  return { version: 1, ...thisProcess(), acquired: new Date().toISOString(), mode, label, slots };
}

const encoder = new TextEncoder();

/** `pid_t` is a signed 32-bit integer. */
const PID_MAX = 0x7fff_ffff;

/** The bytes of a lock file: the pid alone on line 1, as every pidfile tool reads it, and the record on line 2. */
export function encodeRecord(record: HolderRecord): Uint8Array {
  return encoder.encode(`${process.pid}\n${JSON.stringify(record)}\n`);
}

/** Reads a record back. Whatever the file holds, this gives a holder: of what cannot be read nothing is known. */
export function decodeRecord(text: string): Holder {
  return holderByRecord(parseLockFile(text));
}

/** What stands in a lock file. It may be anything. */
export interface WrittenRecord {
  pid?: number | undefined;
  record: Partial<HolderRecord>;
}

export function parseLockFile(text: string): WrittenRecord {
  const [first = "", second = ""] = text.split("\n", 2);
  const pid = /^\d{1,10}$/.test(first.trim()) ? Number(first) : 0;
  return pid < 1 || pid > PID_MAX ? { record: {} } : { pid, record: parseRecord(second) };
}

/** @param startedAt what tells when a process started */
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
    host: record.host,
    acquiredAt: acquiredAt && !Number.isNaN(acquiredAt.getTime()) ? acquiredAt : undefined,
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
  const count = (key: string) =>
    Number.isSafeInteger(fields[key]) && (fields[key] as number) > 0 ? (fields[key] as number) : undefined;
  return {
    host: text("host"),
    boot: text("boot"),
    pidns: text("pidns"),
    started: text("started"),
    acquired: text("acquired"),
    mode: text("mode") as Mode | undefined,
    label: text("label"),
    slots: count("slots"),
    name: text("name"),
    command: count("command"),
  };
}

/** Is this pid the process that wrote the record? Undefined when pids of where it was written mean nothing here. */
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
  // Another user's process may be hidden from us (`hidepid`, proc(5)), a zombie is not.
  if (!processExists(pid)) return false;
  return readText(`/proc/${pid}/stat`) === undefined && process.platform === "linux" ? undefined : false;
}
