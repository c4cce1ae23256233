/**
 * Identity of this host, its present boot and this pid namespace: where a pid and a start time have a meaning. And its
 * database of users.
 */
import { clock } from "./clock.ts";
import { readlink, readText } from "./files.ts";
import { libc, linux, pointerAt, textAt } from "./libc.ts";

export const hostName = (): string =>
  readText("/proc/sys/kernel/hostname")?.trim() ??
  (require("node:os") as typeof import("node:os")).hostname();

/** The kernel's id of this boot: proc_sys_kernel(5). */
export const bootId = (): string | undefined => readText("/proc/sys/kernel/random/boot_id")?.trim();

/**
 * Seconds since this boot, sleep included, to a hundredth: what proc_uptime(5) says, for a tenth of its cost. The clock for
 * what several processes compare, because it cannot be set.
 */
export const uptime = (): number => Math.floor(clock() / 10) / 100;

/** Inode of the pid namespace: pid_namespaces(7). */
export const pidNamespace = (): string | undefined => /\d+/.exec(readlink("/proc/self/ns/pid") ?? "")?.[0];

/** Where `pw_shell` is in a `struct passwd`: getpwuid(3). */
const PW_SHELL = linux ? 40 : 56;

/** The shell of our user in the database of users; undefined where it has none. */
export function loginShell(): string | undefined {
  const { getpwuid, getuid } = libc({
    getpwuid: { args: ["u32"], returns: "ptr" },
    getuid: { args: [], returns: "u32" },
  });
  const entry = getpwuid(getuid());
  return entry ? textAt(pointerAt(entry + PW_SHELL)) || undefined : undefined;
}
