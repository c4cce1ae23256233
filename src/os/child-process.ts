/** How a child changes: it exits, is killed, stops or continues. */
import { address, type CFunction, type CFunctions, libc, linux, startThread } from "./libc.ts";

const WNOHANG = 1;
const WUNTRACED = 2;
const WCONTINUED = linux ? 8 : 16;

/** How a child ended. */
export type Ending = { exited: number } | { killed: number };
export type Change = Ending | { stopped: number } | { continued: true };

/** No more than the calls of this file, all opened at once: each opening costs start-up. */
const open = () =>
  libc({
    waitpid: { args: ["i32", "ptr", "i32"], returns: "i32" },
    waitid: { args: ["i32", "i32", "ptr", "i32"], returns: "i32" },
    // Variadic, which on Linux is called like any other function.
    ...(linux && { prctl: { args: ["i32", "u64", "u64", "u64", "u64"], returns: "i32" } }),
  } as CFunctions);
let c: Record<string, CFunction> | undefined;
const waitStatus = new Int32Array(1);

/**
 * The next change of a child, if there is one: waitpid(2). Reaps the other children that have ended: those that a program
 * executed in our place left us, and those that we adopted.
 * @throws when it is not our child, or was reaped elsewhere
 */
export function childChange(pid: number): Change | undefined {
  c ??= open();
  const result = c.waitpid!(pid, address(waitStatus), WNOHANG | WUNTRACED | WCONTINUED);
  if (result < 0) throw new Error(`the command (pid ${pid}) has ended, and its exit status is lost`);
  if (result === 0) {
    reapOthers(pid);
    return undefined;
  }
  const status = waitStatus[0]!;
  if (status === (linux ? 0xffff : 0x137f)) return { continued: true };
  if ((status & 0xff) === 0x7f) return { stopped: (status >> 8) & 0xff };
  const signal = status & 0x7f;
  return signal === 0 ? { exited: (status >> 8) & 0xff } : { killed: signal };
}

/** Reaps this child if it has ended. @returns false while it lives */
export function hasEnded(pid: number): boolean {
  c ??= open();
  return c.waitpid!(pid, address(waitStatus), WNOHANG) !== 0;
}

const P_ALL = 0;
const WEXITED = 4;
const WNOWAIT = linux ? 0x0100_0000 : 0x20;
/** Where a siginfo_t has the pid: sigaction(2). */
const SI_PID = linux ? 4 : 3;
const childInfo = new Int32Array(32);

/** Children of the runtime, which waits for them itself. */
const ofTheRuntime = new Set<number>();

/** Leaves a child to the runtime that has started it. */
export const leaveToRuntime = (pid: number): void => void ofTheRuntime.add(pid);

/**
 * Reaps every child that has ended, but for one: a look that takes nothing (WNOWAIT), and then waitpid(2) for that pid. What
 * comes after a zombie that must stay is reaped later.
 */
export function reapOthers(except: number): void {
  c ??= open();
  for (;;) {
    childInfo[SI_PID] = 0;
    if (c.waitid!(P_ALL, 0, address(childInfo), WEXITED | WNOHANG | WNOWAIT) !== 0) return;
    const pid = childInfo[SI_PID]!;
    if (pid === 0 || pid === except || ofTheRuntime.has(pid)) return;
    c.waitpid!(pid, address(waitStatus), WNOHANG);
  }
}

const PR_SET_CHILD_SUBREAPER = 36;

/**
 * Makes this process the one that adopts what its descendants leave, instead of init: PR_SET_CHILD_SUBREAPER(2const), Linux
 * 3.4. So all that the command starts stays below us, whatever session, environment and parent it takes, as long as this
 * process lives. The command does not inherit it.
 */
export function adoptDescendants(): void {
  c ??= open();
  c.prctl?.(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

const P_PID = 1;
/** WEXITED, WSTOPPED and WCONTINUED; with WNOWAIT the change stays for `childChange`. */
const CHANGES = linux ? 0x0100000e : 0x3c;

/** Starts a thread that sits in waitid(2): it posts a message once when it is ready, then one a change of the pid it got. */
export const startChildThread = (): Worker =>
  startThread(
    { waitid: { args: ["i32", "i32", "ptr", "i32"], returns: "i32" } },
    `const info = new Int32Array(32);
self.onmessage = ({ data: pid }) => postMessage(c.waitid(${P_PID}, pid, ptr(info), ${CHANGES}));
postMessage("ready");`,
  );
