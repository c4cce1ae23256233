/**
 * Starts the command by the C library's own calls.
 *
 * `Bun.spawn` resets signal dispositions and passes only listed descriptors on. A transparent wrapper must pass on both as
 * it found them, hence posix_spawn(3).
 */
import {
  closeInherited,
  duplicate,
  type LockDescriptor,
  type LockPlacement,
  prepareDescriptors,
} from "./descriptors.ts";
import { close, readFile } from "./files.ts";
import { address, type Code, errorCode, failureOf, libc, linux } from "./libc.ts";
import { isCompiled } from "./self.ts";
import { maskAtStart, unblockSignals } from "./signal-mask.ts";
import { setDefault, signalSet } from "./signal-sets.ts";
import { SIG } from "./signals.ts";

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
});

/** Strings for C: an array of pointers, ended by a null pointer, as execve(2) takes it. */
export class StringArray {
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
  /** The address of the first string. */
  get first(): number {
    return address(this.#bytes[0]!);
  }
}

const encoder = new TextEncoder();
export const cString = (text: string): Uint8Array => encoder.encode(`${text}\0`);

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
 * Arguments as the bytes that we were given. Bun turns bytes that are not UTF-8 into U+FFFD, but they are good file names.
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
export function environment(extra: Record<string, string>): Uint8Array[] {
  const block = linux ? readFile("/proc/self/environ") : undefined;
  const inherited = block
    ? splitBlock(block)
    : Object.entries(process.env).map(([key, value]) => cString(`${key}=${value}`));
  const names = Object.keys(extra).map((key) => encoder.encode(`${key}=`));
  const kept = inherited.filter((entry) => !names.some((name) => name.every((byte, i) => entry[i] === byte)));
  return [...kept, ...Object.entries(extra).map(([key, value]) => cString(`${key}=${value}`))];
}

/** What a command is started with. */
export interface Command extends LockPlacement {
  /** The command and its arguments: the last arguments of this process. */
  argv: readonly string[];
  /** Variables to add to the environment. */
  env: Record<string, string>;
  /** A shell that runs the only argument as a script, with `-c`. */
  shell?: string;
}

/** A command that was started, or the code of why not. */
export type Started = LockDescriptor &
  ({ pid: number; failure?: undefined } | { pid?: undefined; failure: Code });

/**
 * Bun ignores these two before our code runs, and afterwards nothing tells whether they were ignored before: the command
 * gets their default action. The Linux binary is built so that they are left alone: see `build/process-state.ts`.
 */
const BUN_IGNORES = linux && isCompiled ? [] : ([SIG.PIPE, SIG.XFSZ] as const);

/**
 * Starts the command with the signal mask, ignored signals, descriptors and terminal that we were started with.
 * @throws {LockFileError} when the lock's descriptor cannot be handed on
 */
export function start(command: Command): Started {
  const { inherited, lockFd, target } = prepareDescriptors(command);
  const actions = target === lockFd ? null : moveLock(lockFd, target);
  const attributes = spawnAttributes();
  const envp = new StringArray(environment(command.env));
  const pid = new Int32Array(1);
  const spawn = (strings: Uint8Array[]): Code | undefined => {
    const argv = new StringArray(strings);
    const errno = c.posix_spawnp(
      address(pid),
      argv.first,
      actions && address(actions),
      address(attributes),
      argv.address,
      envp.address,
    );
    return errno === 0 ? undefined : errorCode(errno);
  };
  const strings = stringsOf(command);
  let failure = spawn(strings);
  // As execvp(3) does, and so every shell: a file without a known format is a script, by its path.
  if (failure === "ENOEXEC") failure = spawn([cString("/bin/sh"), ...inPath(strings)]);
  if (failure === undefined) closeInherited(inherited);
  // Ignored children leave no exit status behind. The command keeps the action; we no longer need it.
  setDefault(SIG.CHLD);
  return failure === undefined ? { pid: pid[0]!, lockFd } : { failure, lockFd };
}

/** The command's signals: the mask that we were started with, and default actions where Bun has changed them. */
function spawnAttributes(): Uint8Array {
  const attributes = new Uint8Array(512);
  const defaults = signalSet(...BUN_IGNORES);
  // glibc ignores its own two in the command unless they are in the set.
  if (linux) defaults.set([defaults[3]! | 0x80, defaults[4]! | 0x01], 3);
  c.posix_spawnattr_init(address(attributes));
  c.posix_spawnattr_setflags(address(attributes), POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  c.posix_spawnattr_setsigdefault(address(attributes), address(defaults));
  c.posix_spawnattr_setsigmask(address(attributes), address(maskAtStart));
  return attributes;
}

/** A command that was named without a directory, with the directory where it was found. */
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
 * Replaces this process with the command: execve(2). Returns only when that fails, with the code.
 * @throws {LockFileError} when the lock's descriptor cannot be handed on
 */
export function execInto(command: Command): LockDescriptor & { failure: Code } {
  const { lockFd, target } = prepareDescriptors(command);
  if (target !== lockFd) {
    if (target !== undefined) duplicate(lockFd, target);
    close(lockFd);
  }
  for (const signal of BUN_IGNORES) setDefault(signal);
  for (const [key, value] of Object.entries(command.env))
    c.setenv(address(cString(key)), address(cString(value)), 1);
  const argv = new StringArray(stringsOf(command));
  unblockSignals();
  return { failure: failureOf(c.execvp(argv.first, argv.address))!, lockFd };
}
