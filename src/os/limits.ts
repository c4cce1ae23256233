/** Limits of this process, getrlimit(2), and what it can see. */
import { lstat, readText } from "./files.ts";
import { linux } from "./libc.ts";

export interface Limits {
  /** Bytes. */
  addressSpace: number;
  /** Processes and threads of the user. */
  processes: number;
  openFiles: number;
}

/** The soft limits, as proc_pid_limits(5) has them; infinite where they are unlimited, or not known. */
export function limits(): Limits {
  const text = readText("/proc/self/limits") ?? "";
  const soft = (name: string) => {
    const value = new RegExp(`^${name} +(\\d+)`, "m").exec(text)?.[1];
    return value === undefined ? Number.POSITIVE_INFINITY : Number(value);
  };
  return {
    addressSpace: soft("Max address space"),
    processes: soft("Max processes"),
    openFiles: soft("Max open files"),
  };
}

/** Does the system show processes as files? On macOS there is ps(1) instead. */
export const seesProcesses = (): boolean => !linux || typeof lstat("/proc/self/stat") !== "string";
