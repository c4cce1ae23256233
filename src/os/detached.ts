/** Starts a program in a session of its own, with nothing of this process's descriptors but those that it is to keep. */
import { keepOnExec } from "./descriptors.ts";
import { readDirectory } from "./files.ts";
import { address, type CFunction, type CFunctions, type Code, errorCode, libc, linux } from "./libc.ts";
import { signalSet } from "./signal-sets.ts";
import { cString, StringArray } from "./spawn.ts";

const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const POSIX_SPAWN_SETSID = linux ? 0x80 : 0x400;
/** macOS: every descriptor without an action is closed. */
const POSIX_SPAWN_CLOEXEC_DEFAULT = linux ? 0 : 0x4000;

const O_RDWR = 2;

/** The last signal that every system has. */
const LAST_SIGNAL = 31;

/** A program that was started, or the code of why not. */
type Detached = { pid: number; failure?: undefined } | { pid?: undefined; failure: Code };

/**
 * Starts a program with default signal actions, and /dev/null as its standard streams.
 * @param argv the program by its path, and its arguments
 * @param env its environment: `NAME=value`, each with its NUL
 * @param keep descriptors that it has at the same numbers
 */
export function startDetached(argv: string[], env: Uint8Array[], keep: readonly number[] = []): Detached {
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
    ...(!linux && { posix_spawn_file_actions_addinherit_np: { args: ["ptr", "i32"], returns: "i32" } }),
  } as CFunctions) as Record<string, CFunction>;
  const attributes = new Uint8Array(512);
  const none = signalSet();
  const all = signalSet(...Array.from({ length: LAST_SIGNAL }, (_, i) => i + 1));
  c.posix_spawnattr_init!(address(attributes));
  c.posix_spawnattr_setflags!(
    address(attributes),
    POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID | POSIX_SPAWN_CLOEXEC_DEFAULT,
  );
  c.posix_spawnattr_setsigdefault!(address(attributes), address(all));
  c.posix_spawnattr_setsigmask!(address(attributes), address(none));
  const actions = new Uint8Array(512);
  const nothing = cString("/dev/null");
  c.posix_spawn_file_actions_init!(address(actions));
  for (const fd of [0, 1, 2])
    c.posix_spawn_file_actions_addopen!(address(actions), fd, address(nothing), O_RDWR, 0);
  for (const fd of linux ? openDescriptors() : [])
    if (!keep.includes(fd)) c.posix_spawn_file_actions_addclose!(address(actions), fd);
  for (const fd of keep) {
    keepOnExec(fd);
    c.posix_spawn_file_actions_addinherit_np?.(address(actions), fd);
  }
  const strings = new StringArray(argv.map(cString));
  const envp = new StringArray(env);
  const pid = new Int32Array(1);
  const errno = c.posix_spawn!(
    address(pid),
    strings.first,
    address(actions),
    address(attributes),
    strings.address,
    envp.address,
  );
  c.posix_spawn_file_actions_destroy!(address(actions));
  return errno !== 0 ? { failure: errorCode(errno) } : { pid: pid[0]! };
}

/** The descriptors from 3 on. One that is no longer open is no error: glibc and musl ignore it. */
function openDescriptors(): number[] {
  const names = readDirectory("/proc/self/fd");
  return typeof names === "string" ? [] : names.map(Number).filter((fd) => fd > 2);
}
