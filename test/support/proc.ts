/** What Linux shows of processes and locks in /proc. */
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";

/** The fields of a process's stat from its state on, or undefined when it is gone: proc_pid_stat(5). */
function statFields(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}

/** The letter of a process's state: `T` stopped, `Z` zombie. Undefined when it is gone. */
export const stateOf = (pid: number): string | undefined => statFields(pid)?.[0];

export const processGroupOf = (pid: number): number => Number(statFields(pid)?.[2]);

/** When a process started, in clock ticks since the boot. */
export const startTimeOf = (pid: number): string => statFields(pid)![19]!;

/** Is this signal in a set of proc_pid_status(5), for the blocked ones of the main thread? */
export function inSignalSet(pid: number, set: "ShdPnd" | "SigBlk" | "SigIgn", signal: number): boolean {
  const [, bits] = new RegExp(`^${set}:\\t(.*)$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))!;
  return ((BigInt(`0x${bits}`) >> BigInt(signal - 1)) & 1n) === 1n;
}

/** Is this process alive, and not dead or a zombie? */
export function alive(pid: number): boolean {
  const state = stateOf(pid);
  return state !== undefined && state !== "Z" && state !== "X";
}

/** What a process's descriptors stand for, in their order; without those that it closes meanwhile. */
export const descriptorsOf = (pid: number): string[] =>
  readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return [];
    }
  });

/** How many processes wait for the locks of these files. */
export function waiters(...files: string[]): number {
  const inodes = files.map((file) => `:${statSync(file).ino} `);
  const lines = readFileSync("/proc/locks", "utf8").split("\n");
  return lines.filter((line) => line.includes("-> FLOCK") && inodes.some((inode) => line.includes(inode)))
    .length;
}
