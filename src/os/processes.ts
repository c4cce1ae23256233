/** Processes as the OS shows them now: /proc on Linux, ps(1) on macOS. */
import { codeOf } from "./errors.ts";
import { readDirectory, readText } from "./files.ts";
import { libc, linux, pointerAt, textAt } from "./libc.ts";

/** What /proc/PID/stat says: proc_pid_stat(5). */
interface Stat {
  /** One letter. */
  state: string;
  parent: number;
  /** Clock ticks since boot. */
  started: string;
}

/** Undefined when there is no such process, or it is hidden from us. */
function readStat(pid: number | "self"): Stat | undefined {
  const stat = readText(`/proc/${pid}/stat`);
  // The second field is the program's name in parentheses, and may hold anything.
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields && { state: fields[0]!, parent: Number(fields[1]), started: fields[19]! };
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

/**
 * When a process started, as text that tells it from a later one with the same pid. Undefined if there is no such process,
 * or it has ended, or the OS does not say.
 */
export function startTime(pid: number | "self"): string | undefined {
  if (linux) {
    const stat = readStat(pid);
    return stat && (ENDED.has(stat.state) ? undefined : stat.started);
  }
  const shown = ps("-o", "stat=", "-o", "lstart=", "-p", String(pid === "self" ? process.pid : pid));
  const [, state, started] = /^(\S+)\s+(.+?)\s*$/.exec(shown) ?? [];
  return state?.startsWith("Z") ? undefined : started;
}

/** Can it be seen from here? Linux may hide other users' processes: `hidepid`, proc(5). */
export const isVisible = (pid: number): boolean => !linux || readStat(pid) !== undefined;

export const parentOf = (pid: number): number | undefined =>
  linux ? readStat(pid)?.parent : Number(psField("ppid=", pid)) || undefined;

/** Is it stopped, as by Ctrl-Z? */
export function isStopped(pid: number): boolean {
  const state = linux ? readStat(pid)?.state : psField("state=", pid);
  return state?.startsWith("T") ?? false;
}

/** Is this process `ancestor`, or one that it started, directly or not? Known on Linux only. */
export function descendsFrom(process: number, ancestor: number): boolean {
  for (let pid: number | undefined = process; pid !== undefined && pid > 1; pid = readStat(pid)?.parent)
    if (pid === ancestor) return true;
  return false;
}

/** The pids of all processes that can be seen. */
export function processIds(): number[] {
  if (!linux) return ps("-axo", "pid=").split("\n").map(Number);
  const names = readDirectory("/proc");
  return typeof names === "string" ? [] : names.filter((name) => /^\d+$/.test(name)).map(Number);
}

/** The children of each process that has any. */
export function childrenByParent(): Map<number, number[]> {
  const children = new Map<number, number[]>();
  for (const [pid, parent] of linux ? procParents() : psParents()) {
    const siblings = children.get(parent);
    if (siblings === undefined) children.set(parent, [pid]);
    else siblings.push(pid);
  }
  return children;
}

function* procParents(): Generator<[pid: number, parent: number]> {
  for (const pid of processIds()) {
    const stat = readStat(pid);
    if (stat !== undefined) yield [pid, stat.parent];
  }
}

function* psParents(): Generator<[pid: number, parent: number]> {
  for (const line of ps("-axo", "pid=,ppid=").split("\n")) {
    const [pid, parent] = line.trim().split(/\s+/).map(Number);
    if (pid && parent !== undefined) yield [pid, parent];
  }
}

/** The command line of a process, its arguments separated by spaces; undefined when the OS does not say. */
export function commandLine(pid: number): string | undefined {
  const raw = linux ? readText(`/proc/${pid}/cmdline`) : psField("args=", pid);
  return raw?.replace(/\0$/, "").replaceAll("\0", " ") || undefined;
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
function userName(uid: number): string | undefined {
  const entry = libc({ getpwuid: { args: ["u32"], returns: "ptr" } }).getpwuid(uid);
  return entry ? textAt(pointerAt(entry)) : undefined;
}
