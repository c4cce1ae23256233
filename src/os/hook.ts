/** Starts a command that nothing waits for, `run --on-event`. */
import { childChange } from "./child-process.ts";
import { startDetached } from "./detached.ts";
import type { Code } from "./libc.ts";
import { environment } from "./spawn.ts";

/** Hooks that may run at once. */
const MOST = 8;

/**
 * The shell that starts the hook ends at once, so that the hook is no child of this process, nor, with `--exec`, of the
 * command. The text fits into a pipe: the hook may leave it unread.
 */
const SCRIPT = `{ printf '%s\\n' "$1" | exec /bin/sh -c "$2"; } &`;

/** Process groups of hooks that may still run. */
let running: number[] = [];

/**
 * Starts `/bin/sh -c command` with this text on stdin; its output goes to /dev/null.
 * @returns the code of a failure; `EAGAIN` where too many hooks of this process still run
 */
export function startHook(command: string, text: string, env: Record<string, string>): Code | undefined {
  running = running.filter(isAlive);
  if (running.length >= MOST) return "EAGAIN";
  const argv = ["/bin/sh", "-c", SCRIPT, "exclusive", text, command];
  const { pid, failure } = startDetached(argv, environment(env));
  if (failure !== undefined) return failure;
  running.push(pid);
  reap(pid);
  return undefined;
}

/** How long to wait for the shell that only starts another, in milliseconds. It stays a zombie if it takes longer. */
const REAP_MS = 1000;

function reap(pid: number): void {
  for (let waited = 0; waited < REAP_MS; waited++) {
    try {
      const change = childChange(pid);
      if (change !== undefined && ("exited" in change || "killed" in change)) return;
    } catch {
      return; // children are ignored, and so leave no status
    }
    Bun.sleepSync(1);
  }
}

/** Does a process of this group live? Its number is not given to another while one does. */
function isAlive(group: number): boolean {
  try {
    process.kill(-group, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code === "EPERM";
  }
}
