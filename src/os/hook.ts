/** Starts a command that nothing waits for: in a session of its own, with nothing of this process's descriptors. */
import { childChange } from "./child-process.ts";
import { readDirectory } from "./files.ts";
import { address, type Code, errorCode, libc, linux } from "./libc.ts";
import { signalSet } from "./signal-sets.ts";
import { cString, environment, StringArray } from "./spawn.ts";

const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const POSIX_SPAWN_SETSID = linux ? 0x80 : 0x400;
/** macOS: every descriptor without an action is closed. */
const POSIX_SPAWN_CLOEXEC_DEFAULT = linux ? 0 : 0x4000;

const O_RDWR = 2;

/** Hooks that may run at once. */
const MOST = 8;

/** The last signal that every system has. */
const LAST_SIGNAL = 31;

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
  const c = libc({
    posix_spawn: { args: ["ptr", "ptr", "ptr", "ptr", "ptr", "ptr"], returns: "i32" },
    posix_spawnattr_init: { args: ["ptr"], returns: "i32" },
    posix_spawnattr_setflags: { args: ["ptr", "i16"], returns: "i32" },
    posix_spawnattr_setsigdefault: { args: ["ptr", "ptr"], returns: "i32" },
    posix_spawnattr_setsigmask: { args: ["ptr", "ptr"], returns: "i32" },
    posix_spawn_file_actions_init: { args: ["ptr"], returns: "i32" },
    posix_spawn_file_actions_addopen: { args: ["ptr", "i32", "ptr", "i32", "i32"], returns: "i32" },
    posix_spawn_file_actions_addclose: { args: ["ptr", "i32"], returns: "i32" },
    posix_spawn_file_actions_destroy: { args: ["ptr"], returns: "i32" },
  });
  const attributes = new Uint8Array(512);
  const none = signalSet();
  const all = signalSet(...Array.from({ length: LAST_SIGNAL }, (_, i) => i + 1));
  c.posix_spawnattr_init(address(attributes));
  c.posix_spawnattr_setflags(
    address(attributes),
    POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID | POSIX_SPAWN_CLOEXEC_DEFAULT,
  );
  c.posix_spawnattr_setsigdefault(address(attributes), address(all));
  c.posix_spawnattr_setsigmask(address(attributes), address(none));
  const actions = new Uint8Array(512);
  const nothing = cString("/dev/null");
  c.posix_spawn_file_actions_init(address(actions));
  for (const fd of [0, 1, 2])
    c.posix_spawn_file_actions_addopen(address(actions), fd, address(nothing), O_RDWR, 0);
  for (const fd of linux ? openDescriptors() : []) c.posix_spawn_file_actions_addclose(address(actions), fd);
  const argv = new StringArray(["/bin/sh", "-c", SCRIPT, "exclusive", text, command].map(cString));
  const envp = new StringArray(environment(env));
  const pid = new Int32Array(1);
  const errno = c.posix_spawn(
    address(pid),
    argv.first,
    address(actions),
    address(attributes),
    argv.address,
    envp.address,
  );
  c.posix_spawn_file_actions_destroy(address(actions));
  if (errno !== 0) return errorCode(errno);
  running.push(pid[0]!);
  reap(pid[0]!);
  return undefined;
}

/** The descriptors from 3 on. One that is no longer open is no error: glibc and musl ignore it. */
function openDescriptors(): number[] {
  const names = readDirectory("/proc/self/fd");
  return typeof names === "string" ? [] : names.map(Number).filter((fd) => fd > 2);
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
