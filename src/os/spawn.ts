/**
 * Starting the command by libc's own calls.
 *
 * `Bun.spawn` gives the command default signal actions and no descriptor above 2 but those it is told of. A wrapper
 * that cannot be felt must leave both as it found them, so the command is started with posix_spawn(3).
 */

import { CommandError, EXIT } from "../command/cli/exit-status.ts";
import { encodeRecord, newRecord } from "../holder.ts";
import {
  address,
  checked,
  E,
  errorText,
  libc,
  O,
  open,
  readDirectory,
  readFile,
  readlink,
  readText,
} from "./libc.ts";
import { maskAtStart, unblockSignals } from "./signal-mask.ts";
import { signalSet } from "./signal-sets.ts";
import { SIG, setDefault } from "./signals.ts";

const linux = process.platform === "linux";

const RLIMIT_NOFILE = linux ? 7 : 8;
const POSIX_SPAWN_SETSIGDEF = 4;
const POSIX_SPAWN_SETSIGMASK = 8;

const c = libc({
  posix_spawnp: { args: ["ptr", "ptr", "ptr", "ptr", "ptr", "ptr"], returns: "i32" },
  posix_spawnattr_init: { args: ["ptr"], returns: "i32" },
  posix_spawnattr_setflags: { args: ["ptr", "i16"], returns: "i32" },
  posix_spawnattr_setsigdefault: { args: ["ptr", "ptr"], returns: "i32" },
  posix_spawnattr_setsigmask: { args: ["ptr", "ptr"], returns: "i32" },
  execvp: { args: ["ptr", "ptr"], returns: "i32" },
  setenv: { args: ["ptr", "ptr", "i32"], returns: "i32" },
  getrlimit: { args: ["i32", "ptr"], returns: "i32" },
  dup2: { args: ["i32", "i32"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
});

/** Strings for C: an array of pointers, ended by a null pointer, as `execve(2)` takes it. */
class StringArray {
  readonly #bytes: Uint8Array[];
  readonly #pointers: BigUint64Array;

  constructor(strings: Uint8Array[]) {
    this.#bytes = strings;
    this.#pointers = new BigUint64Array(strings.length + 1);
    for (const [i, bytes] of strings.entries()) this.#pointers[i] = BigInt(address(bytes));
  }
  get address(): number {
    return address(this.#pointers);
  }
  /** The first string. */
  get first(): number {
    return address(this.#bytes[0]!);
  }
}

const encoder = new TextEncoder();
const cString = (text: string): Uint8Array => encoder.encode(`${text}\0`);

/** The strings of a block such as /proc/self/environ, each with its NUL; they share the block's memory. */
function splitBlock(block: Uint8Array): Uint8Array[] {
  const strings: Uint8Array[] = [];
  for (let start = 0; start < block.length; ) {
    const end = block.indexOf(0, start) + 1 || block.length;
    strings.push(block.subarray(start, end));
    start = end;
  }
  return strings;
}

/**
 * Arguments as the bytes we were given: Bun turns what is no UTF-8 into U+FFFD, and such bytes are good file names.
 * @param args the last arguments of this process
 */
export function rawArguments(args: readonly string[]): Uint8Array[] {
  if (args.some((arg) => arg.includes("\ufffd"))) {
    const all = splitBlock(readFile("/proc/self/cmdline") ?? new Uint8Array());
    if (all.length > args.length) return all.slice(-args.length);
  }
  return args.map(cString);
}

/** The environment that we were given, with these variables set. */
function environment(extra: Record<string, string>): Uint8Array[] {
  const block = linux ? readFile("/proc/self/environ") : undefined;
  const inherited = block
    ? splitBlock(block)
    : Object.entries(process.env).map(([key, value]) => cString(`${key}=${value}`));
  const names = Object.keys(extra).map((key) => encoder.encode(`${key}=`));
  const kept = inherited.filter((entry) => !names.some((name) => name.every((byte, i) => entry[i] === byte)));
  return [...kept, ...Object.entries(extra).map(([key, value]) => cString(`${key}=${value}`))];
}

const CLOSE_ON_EXEC = /^flags:\s+0?[2367]\d{6}$/m;

/**
 * Was this descriptor open when we were started? Bun has some of its own, and puts /dev/null in the place of a
 * closed 0, 1 or 2: with close-on-exec, which no descriptor has that came through an execve(2). Known on Linux only.
 */
function wasInherited(fd: number, inherited: readonly number[]): boolean {
  if (fd > 2) return inherited.includes(fd);
  if (!linux) return fd >= 0;
  const info = readText(`/proc/self/fdinfo/${fd}`);
  return info !== undefined && !CLOSE_ON_EXEC.test(info);
}

/** Can we have this descriptor from whoever started us? */
export const isInherited = (fd: number): boolean => wasInherited(fd, inheritedDescriptors(-1));

/** The number that a file opened by a program in our place would get, had it opened none yet: `open(2)`. */
function lowestFree(inherited: readonly number[]): number {
  let fd = 0;
  while (wasInherited(fd, inherited)) fd++;
  return fd;
}

/** Descriptors from 3 on that whoever started us left open, without `except` and those of Bun's event loop. */
export function inheritedDescriptors(except?: number): number[] {
  const names = readDirectory(linux ? "/proc/self/fd" : "/dev/fd");
  if (typeof names === "number") return [];
  const bunsOwn = new Set<number>();
  const found: number[] = [];
  for (const fd of names.map(Number)) {
    if (fd < 3 || fd === except) continue;
    const target = linux ? readlink(`/proc/self/fd/${fd}`) : "";
    if (target === undefined) continue; // the descriptor that listed the others
    if (target === "anon_inode:[eventpoll]") {
      const watched = readText(`/proc/self/fdinfo/${fd}`) ?? "";
      for (const [, number] of watched.matchAll(/^tfd:\s+(\d+)/gm)) bunsOwn.add(Number(number));
    } else {
      found.push(fd);
    }
  }
  return found.filter((fd) => !bunsOwn.has(fd));
}

/** Clears close-on-exec, which Bun sets on all that it inherits: dup2(2) gives a descriptor without it. */
function clearCloseOnExec(fds: readonly number[], spare: number): void {
  for (const fd of fds) {
    c.dup2(fd, spare);
    c.dup2(spare, fd);
  }
  if (fds.length > 0) c.close(spare);
}

/**
 * What the command inherits, made ready: call it last before the command starts. `target` is the lock's number there.
 * @throws {CommandError} where the lock cannot be moved there
 */
function handOver({ lockFd, lockAt, inherited = inheritedDescriptors(lockFd) }: Command): Moved & {
  inherited: readonly number[];
  target: number | undefined;
} {
  const limits = new BigUint64Array(2);
  c.getrlimit(RLIMIT_NOFILE, address(limits));
  const soft = limits[0]!;
  let high = soft < 1024n ? Number(soft) - 1 : 1023;
  const taken = (fd: number) => inherited.includes(fd) || fd === lockFd;
  while (taken(high) || taken(high - 1)) high--;
  const stays = lockAt === "inherited" || lockAt === "lowest" ? [lockFd] : [];
  clearCloseOnExec([...inherited, ...stays], high - 1);
  if (lockFd < 0) return { inherited, lockFd, target: lockFd };
  if (lockAt === "lowest") return { inherited, lockFd, target: lowestFree(inherited) };
  if (lockAt !== undefined) return { inherited, lockFd, target: lockAt === "closed" ? undefined : lockFd };
  // Without it the command would run, and nobody would hold the lock.
  const moved = checked(c.dup2(lockFd, high));
  if (moved < 0)
    throw new CommandError(`cannot hand the lock to the command: ${errorText(-moved)}`, EXIT.IO_ERROR);
  c.close(lockFd);
  return { inherited, lockFd: high, target: high };
}

/** What a command is started with. */
export interface Command {
  /** The command and its arguments: the last arguments of this process. */
  argv: readonly string[];
  /** Variables to add to the environment. */
  env: Record<string, string>;
  /** The descriptor that holds the lock; -1 where the lock lives in a store. */
  lockFd: number;
  /** What the command inherits, found out before we opened anything: else it is asked for now. */
  inherited?: readonly number[];
  /**
   * Where the command finds it. By default at the highest number that it can have without a table of descriptors that
   * is large for its sake. `lowest`: where it would be had the command's parent opened it and nothing else; `inherited`:
   * at its number, which whoever started us gave it; `closed`: nowhere.
   */
  lockAt?: "lowest" | "inherited" | "closed";
  /** A shell that runs the only argument as a script, with `-c`. */
  shell?: string;
}

/** Where the lock's descriptor is now: in us. */
interface Moved {
  lockFd: number;
}

/**
 * Bun ignores these two before our code runs, and nothing tells then whether they were ignored before: the command
 * gets their default action. Our binary for Linux is built so that they are left alone: see build.ts.
 */
const BUN_IGNORES = linux && Bun.main.startsWith("/$bunfs/") ? [] : ([SIG.PIPE, SIG.XFSZ] as const);

/**
 * Starts the command with the signal mask, ignored signals, descriptors and terminal that we were started with.
 * @returns its pid, or minus the errno that it could not be started with
 */
export function start(command: Command): Moved & { pid: number } {
  const { inherited, lockFd, target } = handOver(command);
  const actions = target === lockFd ? null : moveLock(lockFd, target);
  const attributes = spawnAttributes();
  const envp = new StringArray(environment(command.env));
  const pid = new Int32Array(1);
  const spawn = (strings: Uint8Array[]) => {
    const argv = new StringArray(strings);
    return c.posix_spawnp(
      address(pid),
      argv.first,
      actions && address(actions),
      address(attributes),
      argv.address,
      envp.address,
    );
  };
  const strings = stringsOf(command);
  let errno = spawn(strings);
  // What execvp(3) does, and so every shell: a file without a known format is a script, by its path.
  if (errno === E.ENOEXEC) errno = spawn([cString("/bin/sh"), ...inPath(strings)]);
  if (errno === 0) letGo(inherited);
  // Ignored children leave no exit status behind. The command keeps the action; we need it no longer.
  setDefault(SIG.CHLD);
  return { pid: errno === 0 ? pid[0]! : -errno, lockFd };
}

/** The signals of the command: the mask that we were started with, and default actions where Bun has changed them. */
function spawnAttributes(): Uint8Array {
  const attributes = new Uint8Array(512);
  const defaults = signalSet(...BUN_IGNORES);
  // glibc ignores its own two in the command unless told not to.
  if (linux) defaults.set([defaults[3]! | 0x80, defaults[4]! | 0x01], 3);
  c.posix_spawnattr_init(address(attributes));
  c.posix_spawnattr_setflags(address(attributes), POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  c.posix_spawnattr_setsigdefault(address(attributes), address(defaults));
  c.posix_spawnattr_setsigmask(address(attributes), address(maskAtStart));
  return attributes;
}

/** A command that was named without a directory, with the one where it was found. */
function inPath([name, ...args]: Uint8Array[]): Uint8Array[] {
  const found = name!.includes(47 /* / */)
    ? null
    : Bun.which(new TextDecoder().decode(name!.subarray(0, -1)));
  return [found === null ? name! : cString(found), ...args];
}

function stringsOf({ shell, argv }: Command): Uint8Array[] {
  const strings = rawArguments(argv);
  return shell === undefined ? strings : [cString(shell), cString("-c"), ...strings];
}

/** What the child does before it becomes the command: posix_spawn_file_actions_adddup2(3), addclose(3). */
function moveLock(lockFd: number, target: number | undefined): Uint8Array {
  const { posix_spawn_file_actions_init, ...add } = libc({
    posix_spawn_file_actions_init: { args: ["ptr"], returns: "i32" },
    posix_spawn_file_actions_adddup2: { args: ["ptr", "i32", "i32"], returns: "i32" },
    posix_spawn_file_actions_addclose: { args: ["ptr", "i32"], returns: "i32" },
  });
  const actions = new Uint8Array(512);
  posix_spawn_file_actions_init(address(actions));
  if (target !== undefined) add.posix_spawn_file_actions_adddup2(address(actions), lockFd, target);
  add.posix_spawn_file_actions_addclose(address(actions), lockFd);
  return actions;
}

/**
 * Does for nothing what `start` will do: a function's first call takes ten times as long as its second, and who waits
 * for a lock has the time beforehand.
 */
export function warmUp(): void {
  inheritedDescriptors();
  spawnAttributes();
  new StringArray(environment({}));
  encodeRecord(newRecord({ mode: "exclusive" }));
}

/** Leaves the command alone with its descriptors: who reads from it must see the end when the command closes. */
function letGo(inherited: readonly number[]): void {
  for (const fd of inherited) c.close(fd);
  const nothing = open("/dev/null", O.RDWR | O.CLOEXEC);
  if (nothing < 0) return;
  c.dup2(nothing, 0);
  c.dup2(nothing, 1);
  if (nothing > 2) c.close(nothing);
}

/** Becomes the command. Returns only when that fails. */
export function become(command: Command): Moved & { errno: number } {
  const { lockFd, target } = handOver(command);
  if (target !== lockFd) {
    if (target !== undefined) c.dup2(lockFd, target);
    c.close(lockFd);
  }
  for (const signal of BUN_IGNORES) setDefault(signal);
  for (const [key, value] of Object.entries(command.env))
    c.setenv(address(cString(key)), address(cString(value)), 1);
  const argv = new StringArray(stringsOf(command));
  unblockSignals();
  return { errno: -checked(c.execvp(argv.first, argv.address)), lockFd };
}
