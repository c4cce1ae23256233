/** Makes one system call of a process fail, slow or fatal, by strace(1). */
import { readdirSync, readFileSync } from "node:fs";
import { FileStore } from "../../src/store/file/file-store.ts";
import { binary } from "../support/paths.ts";
import { alive, processGroupOf } from "../support/proc.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

/** A system call of the main thread: the `nth` of this name, from 1 on. */
export interface Call {
  name: string;
  nth: number;
  /** The line that strace(1) prints. */
  text: string;
}

export interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
  /** The main thread's system calls. */
  trace: string;
  /** The injection took place. */
  fired: boolean;
  /** Its process group, in which its command may outlive it. */
  group: number;
}

export interface Tampering {
  /** Traces and counts only calls on this file, through any descriptor. */
  path?: string | undefined;
  /** For example `NAME:error=EIO:when=2`, strace(1). */
  inject?: string | undefined;
  env?: Record<string, string>;
}

/** A process that hangs is killed after this time. */
const LIMIT_MS = 30_000;

/** Runs `exclusive` with these arguments under strace(1), in its own process group. */
export async function tamper(args: string[], dir: TempDir, how: Tampering = {}): Promise<Outcome> {
  using out = new TempDir();
  const options = [
    ["-o", out.file("trace"), "-s", "0", "-y"],
    how.path === undefined ? [] : ["-P", how.path],
    how.inject === undefined ? [] : ["-e", `inject=${how.inject}`],
  ].flat();
  const child = Bun.spawn(["strace", ...options, "--", binary, ...args], {
    // strace kills in an execve(2) that fails, not in one that succeeds.
    env: { ...process.env, PATH: `/nowhere:${process.env.PATH}`, EXCLUSIVE_DIR: dir.path, ...how.env },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  const limit = setTimeout(() => process.kill(-child.pid, "SIGKILL"), LIMIT_MS);
  const [stdout, stderr] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  clearTimeout(limit);
  const trace = readFileSync(out.file("trace"), "utf8");
  const fired = how.inject?.includes("signal=SIGKILL")
    ? trace.endsWith("+++ killed by SIGKILL +++\n")
    : /\((INJECTED|DELAYED)[^)]*\)$/m.test(trace);
  const status = child.exitCode;
  return { status, stdout, stderr, trace, fired, group: child.pid };
}

/** The record of a crashed holder. */
export const DEAD_RECORD = `999999\n{"version":1,"mode":"exclusive"}\n`;

/** Starts a victim while the lock is held, and releases the lock when the victim waits or has ended. */
export async function whileHeld(dir: string, name: string, start: () => Promise<Outcome>): Promise<Outcome> {
  const store = new FileStore({ dir });
  const lease = store.tryAcquireSync({ name, mode: "exclusive" })!;
  const victim = start();
  let over = false;
  victim.finally(() => {
    over = true;
  });
  await until(async () => over || ((await store.status(name)).waiters ?? 0) > 0, "the victim's wait");
  lease.releaseSync();
  return victim;
}

/** Parses a trace. */
export function callsOf(trace: string): Call[] {
  const counts = new Map<string, number>();
  const calls: Call[] = [];
  for (const line of trace.split("\n")) {
    const name = /^(\w+)\(/.exec(line)?.[1];
    if (name === undefined) continue;
    const nth = (counts.get(name) ?? 0) + 1;
    counts.set(name, nth);
    calls.push({ name, nth, text: line });
  }
  return calls;
}

/** Is a process of this group alive? Zombies do not count: init may reap them later. */
export function groupLives(group: number): boolean {
  return readdirSync("/proc").some((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    return processGroupOf(Number(pid)) === group && alive(Number(pid));
  });
}

/** Calls `work` for each item, `atATime` at once. */
export async function each<T>(items: T[], atATime: number, work: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  const worker = async () => {
    for (const item of queue) await work(item);
  };
  await Promise.all(Array.from({ length: atATime }, worker));
}
