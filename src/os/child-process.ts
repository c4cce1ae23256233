/** How a child changes: it exits, is killed, stops or continues. */
import { address, type CFunction, libc, linux, startThread } from "./libc.ts";

const WNOHANG = 1;
const WUNTRACED = 2;
const WCONTINUED = linux ? 8 : 16;

/** How a child ended. */
export type Ending = { exited: number } | { killed: number };
export type Change = Ending | { stopped: number } | { continued: true };

let waitpid: CFunction | undefined;
const waitStatus = new Int32Array(1);

/**
 * The next change of a child, if there is one: waitpid(2).
 * @throws when it is not our child, or was reaped elsewhere
 */
export function childChange(pid: number): Change | undefined {
  waitpid ??= libc({ waitpid: { args: ["i32", "ptr", "i32"], returns: "i32" } }).waitpid;
  const result = waitpid(pid, address(waitStatus), WNOHANG | WUNTRACED | WCONTINUED);
  if (result === 0) return undefined;
  if (result < 0) throw new Error(`the command (pid ${pid}) has ended, and its exit status is lost`);
  const status = waitStatus[0]!;
  if (status === (linux ? 0xffff : 0x137f)) return { continued: true };
  if ((status & 0xff) === 0x7f) return { stopped: (status >> 8) & 0xff };
  const signal = status & 0x7f;
  return signal === 0 ? { exited: (status >> 8) & 0xff } : { killed: signal };
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
