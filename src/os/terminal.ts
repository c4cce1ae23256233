/**
 * Terminals, by the C library's calls on a descriptor. `process.stdin`, `stdout` and `stderr` are never used: merely to look at
 * one makes Bun set O_NONBLOCK on the open file, which the caller and the command share, or open the terminal again. Text
 * is written by `write` of `files.ts`.
 */
import { FILLERS } from "./descriptors.ts";
import { close, O, open, readDirectory, readText } from "./files.ts";
import { address, type CFunction, libc, linux } from "./libc.ts";

const TIOCGWINSZ = linux ? 0x5413 : 0x40087468;

let functions: Record<"isatty" | "ioctl" | "getpgrp" | "getpgid" | "tcgetpgrp" | "tcsetpgrp", CFunction>;
function c() {
  functions ??= libc({
    isatty: { args: ["i32"], returns: "i32" },
    ioctl: { args: ["i32", "u64", ...FILLERS.map(() => "i64" as const), "ptr"], returns: "i32" },
    getpgrp: { args: [], returns: "i32" },
    getpgid: { args: ["i32"], returns: "i32" },
    tcgetpgrp: { args: ["i32"], returns: "i32" },
    tcsetpgrp: { args: ["i32", "i32"], returns: "i32" },
  });
  return functions;
}

export const isTerminal = (fd: number): boolean => c().isatty(fd) === 1;

/** Can a line be redrawn and colored there? Not where TERM names no terminal, or a dumb one: terminfo(5). */
export const isCapable = (fd: number): boolean =>
  isTerminal(fd) && !["", "dumb"].includes(process.env.TERM ?? "");

/** The size of a terminal's window, 80 by 24 where it has none: ioctl_tty(2). Asked each time: a window changes. */
export function windowSize(fd: number): { columns: number; rows: number } {
  const size = new Uint16Array(4); // struct winsize
  const known = c().ioctl(fd, TIOCGWINSZ, ...FILLERS, address(size)) === 0;
  return { columns: (known && size[1]) || 80, rows: (known && size[0]) || 24 };
}

/** Our process group. */
export const ownGroup = (): number => c().getpgrp();

/** The process group of a process; -1 where it is gone. */
export const groupOf = (pid: number): number => c().getpgid(pid);

/** Does something with our controlling terminal; undefined where we have none. */
function withTerminal<T>(action: (terminal: number) => T): T | undefined {
  const terminal = open("/dev/tty", O.RDONLY | O.NONBLOCK);
  if (typeof terminal !== "number") return undefined;
  const result = action(terminal);
  close(terminal);
  return result;
}

/** The process group that our terminal sends its signals to, and that may read from it. */
export const foregroundGroup = (): number | undefined => withTerminal((terminal) => c().tcgetpgrp(terminal));

/** Is our process group the one that the terminal sends its signals to? */
export const inForeground = (): boolean => foregroundGroup() === ownGroup();

/** Is a process of this group stopped, as one that reads from a terminal in the background? Known on Linux only. */
export function hasStopped(group: number): boolean {
  const names = linux ? readDirectory("/proc") : [];
  return Array.from(names).some((name) => {
    const stat = /^\d/.test(name) ? readText(`/proc/${name}/stat`) : undefined;
    const [state, , ofGroup] = stat?.slice(stat.lastIndexOf(")") + 2).split(" ") ?? []; // proc_pid_stat(5)
    return state === "T" && ofGroup === String(group);
  });
}

/** Puts a process group of our session into the terminal's foreground. SIGTTOU must be blocked: tcsetpgrp(3). */
export function setForeground(group: number): void {
  withTerminal((terminal) => c().tcsetpgrp(terminal, group));
}
