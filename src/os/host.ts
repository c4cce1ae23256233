/** Identity of this host, its present boot and this pid namespace: where a pid and a start time have a meaning. */
import { readlink, readText } from "./files.ts";

export const hostName = (): string =>
  readText("/proc/sys/kernel/hostname")?.trim() ??
  (require("node:os") as typeof import("node:os")).hostname();

/** The kernel's id of this boot: proc_sys_kernel(5). */
export const bootId = (): string | undefined => readText("/proc/sys/kernel/random/boot_id")?.trim();

/**
 * Seconds since this boot, as the kernel counts them, sleep included: proc_uptime(5). The clock for what several processes
 * compare, because it cannot be set. Undefined where there is no /proc.
 */
export function uptime(): number | undefined {
  const seconds = Number.parseFloat(readText("/proc/uptime") ?? "");
  return Number.isNaN(seconds) ? undefined : seconds;
}

/** Inode of the pid namespace: pid_namespaces(7). */
export const pidNamespace = (): string | undefined => /\d+/.exec(readlink("/proc/self/ns/pid") ?? "")?.[0];
