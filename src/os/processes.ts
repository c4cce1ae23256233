/** Processes as the OS shows them now: /proc on Linux, ps(1) on macOS. */
import { clock } from "./clock.ts";
import { codeOf } from "./errors.ts";
import { readDirectory, readText } from "./files.ts";
import { libc, linux, pointerAt, textAt } from "./libc.ts";

/** What /proc/PID/stat says: proc_pid_stat(5). */
interface Stat {
  /** One letter. */
  state: string;
  parent: number;
  /** The process group and the session. */
  group: number;
  session: number;
  threads: number;
  /** Clock ticks since boot. */
  started: string;
}

/** Undefined when there is no such process, or it is hidden from us. */
function readStat(pid: number | "self"): Stat | undefined {
  const stat = readText(`/proc/${pid}/stat`);
  // The second field is the program's name in parentheses, and may hold anything.
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (fields === undefined) return undefined;
  const [state, ...numbers] = fields;
  const [parent, group, session] = numbers.map(Number) as [number, number, number];
  return { state: state!, parent, group, session, threads: Number(numbers[16]), started: numbers[18]! };
}

/** Output of ps(1). Fixed locale and time zone, so that every process reads the same text. */
function ps(...args: string[]): string {
  const { stdout } = Bun.spawnSync(["/bin/ps", ...args], { env: { LC_ALL: "C", TZ: "UTC0" } });
  return stdout.toString().trim();
}

const psField = (field: string, pid: number) => ps("-o", field, "-p", String(pid)) || undefined;

/** Is there a process with this pid, even one that we may not signal? */
export function processExists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) !== "ESRCH";
  }
}

/** States of a process that has ended: zombie, dead. A zombie holds nothing. */
const ENDED = new Set(["Z", "X", "x"]);

/** A process whose first thread has ended is shown as a zombie, and works on in its other threads. */
const hasEnded = ({ state, threads }: Stat): boolean => ENDED.has(state) && !(threads > 1);

/**
 * When a process started, as text that tells it from a later one with the same pid. Undefined if there is no such process,
 * or it has ended, or the OS does not say.
 */
export function startTime(pid: number | "self"): string | undefined {
  if (linux) {
    const stat = readStat(pid);
    return stat && (hasEnded(stat) ? undefined : stat.started);
  }
  const shown = ps("-o", "stat=", "-o", "lstart=", "-p", String(pid === "self" ? process.pid : pid));
  const [, state, started] = /^(\S+)\s+(.+?)\s*$/.exec(shown) ?? [];
  return state?.startsWith("Z") ? undefined : started;
}

/** A clock tick in /proc/PID/stat is a hundredth of a second, whatever the kernel's own: time(7), `USER_HZ`. */
const TICK_MS = 10;

/** When this process started, on `clock()`. On Linux as the kernel has it, which is before the program's first line. */
export function ownStart(): number {
  const ticks = linux ? Number(readStat("self")?.started) : Number.NaN;
  return Number.isNaN(ticks) ? clock() - performance.now() : ticks * TICK_MS;
}

/** As `startTime`, also of a process that has ended and was not reaped yet. Linux only. */
export const birthTime = (pid: number): string | undefined =>
  linux ? readStat(pid)?.started : startTime(pid);

/** Can it be seen from here? Linux may hide other users' processes: `hidepid`, proc(5). */
export const isVisible = (pid: number): boolean => !linux || readStat(pid) !== undefined;

export const parentOf = (pid: number): number | undefined =>
  linux ? readStat(pid)?.parent : Number(psField("ppid=", pid)) || undefined;

/** Is it stopped, as by Ctrl-Z? */
export function isStopped(pid: number): boolean {
  const state = linux ? readStat(pid)?.state : psField("state=", pid);
  return state?.startsWith("T") ?? false;
}

/** The pids of all processes that can be seen. */
export function processIds(): number[] {
  if (!linux) return ps("-axo", "pid=").split("\n").map(Number);
  const names = readDirectory("/proc");
  return typeof names === "string" ? [] : names.filter((name) => /^\d+$/.test(name)).map(Number);
}

/** A process, as its relatives know it. */
export interface Relations {
  parent: number;
  /** Its process group and its session, named by the pid of the process that leads it. */
  group: number;
  session: number;
  /** As `startTime` gives it. */
  started: string;
}

/** Every process that lives, by its pid. */
export function livingProcesses(): Map<number, Relations> {
  const living = new Map<number, Relations>();
  for (const [pid, relations] of linux ? fromProc() : fromPs()) living.set(pid, relations);
  return living;
}

function* fromProc(): Generator<[pid: number, Relations]> {
  for (const pid of processIds()) {
    const stat = readStat(pid);
    if (stat !== undefined && !hasEnded(stat)) yield [pid, stat];
  }
}

/** macOS shows the leader of a session to the kernel's debuggers alone: each process counts as its own session. */
function* fromPs(): Generator<[pid: number, Relations]> {
  const fields = ["pid=", "ppid=", "pgid=", "stat=", "lstart="].flatMap((field) => ["-o", field]);
  for (const line of ps("-ax", ...fields).split("\n")) {
    const [, pid, parent, group, state, started] =
      /^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(.+?)\s*$/.exec(line) ?? [];
    if (started === undefined || state!.startsWith("Z")) continue;
    yield [Number(pid), { parent: Number(parent), group: Number(group), session: Number(pid), started }];
  }
}

/** This process, its parent, and so on. */
export function ourAncestors(processes: ReadonlyMap<number, Relations>): Set<number> {
  const ancestors = new Set<number>();
  for (let pid = process.pid; pid > 1 && !ancestors.has(pid); pid = processes.get(pid)?.parent ?? 0)
    ancestors.add(pid);
  return ancestors;
}

/** Did a process that started then start before this one? Undefined where the OS shows times that have no order. */
export const startedBefore = (one: string, other: string): boolean =>
  linux ? Number(one) < Number(other) : Date.parse(one) < Date.parse(other);

/** A word as a shell needs it. */
export const shellWord = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;

/**
 * The command line of a process, quoted as a shell needs it; undefined when the OS does not say. A single word with spaces
 * is a title that the process gave itself. ps(1) has no quotes.
 */
export function commandLine(pid: number): string | undefined {
  if (!linux) return psField("args=", pid);
  const words = readText(`/proc/${pid}/cmdline`)?.replace(/\0$/, "").split("\0") ?? [];
  const title = words.slice(1).every((word) => word === "");
  return (title ? words[0]?.trimEnd() : words.map(shellWord).join(" ")) || undefined;
}

/** Were these variables, `NAME=VALUE` each, in the environment that the process was started with? Known on Linux only. */
export function hasVariables(pid: number, variables: readonly string[]): boolean {
  const environment = linux ? `\0${readText(`/proc/${pid}/environ`) ?? ""}` : "";
  return variables.every((variable) => environment.includes(`\0${variable}\0`));
}

/** The effective user of a process: name, or number. */
export function userOf(pid: number): string | undefined {
  if (!linux) return psField("user=", pid);
  const uid = statusField(pid, "Uid")?.[1];
  return uid === undefined ? undefined : (userName(Number(uid)) ?? uid);
}

/** The number of the effective user of a process. */
export function userIdOf(pid: number): number | undefined {
  const uid = linux ? statusField(pid, "Uid")?.[1] : psField("uid=", pid);
  return uid === undefined ? undefined : Number(uid);
}

/** The pid of a process in the innermost of its pid namespaces. */
export const innermostPid = (pid: number): number | undefined => {
  const pids = statusField(pid, "NSpid");
  return pids && Number(pids.at(-1));
};

/** The words of a line of /proc/PID/status: proc_pid_status(5). */
function statusField(pid: number, name: string): string[] | undefined {
  const status = readText(`/proc/${pid}/status`) ?? "";
  return new RegExp(`^${name}:\\s+(.*)$`, "m").exec(status)?.[1]?.trim().split(/\s+/);
}

/** The name of a user; undefined for one that has none: getpwuid(3). */
export function userName(uid: number): string | undefined {
  const entry = libc({ getpwuid: { args: ["u32"], returns: "ptr" } }).getpwuid(uid);
  return entry ? textAt(pointerAt(entry)) : undefined;
}
