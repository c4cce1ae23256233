/**
 * Starts the command by the C library's own calls.
 *
 * `Bun.spawn` resets signal dispositions and passes only listed descriptors on. A transparent wrapper must pass on both as
 * it found them, hence posix_spawn(3).
 */
import {
  closeInherited,
  closeOnExec,
  duplicate,
  type LockDescriptor,
  type LockPlacement,
  prepareDescriptors,
} from "./descriptors.ts";
import { ACCESS, access, close, readFile, write } from "./files.ts";
import { address, type Code, errorCode, failureOf, libc, linux } from "./libc.ts";
import { ourselves } from "./self.ts";
import {
  childrenWereIgnored,
  ignoreChildren,
  lostActions,
  maskAtStart,
  restoreEngineSignal,
  restoreIgnored,
  unblockSignals,
} from "./signal-mask.ts";
import { setDefault, signalSet } from "./signal-sets.ts";

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
 * The word by which this program starts itself only to become the command: where ended children are ignored. With that, a
 * child's exit status is lost, so we cannot have it; the command must. A child has what its parent has, so one step more is
 * between us.
 */
export const BECOME = "__become";

/**
 * Starts the command with the signal mask, ignored signals, descriptors and terminal that we were started with.
 * @throws {LockFileError} when the lock's descriptor cannot be handed on
 */
export function start(command: Command): Started {
  const { lockFd, target } = prepareDescriptors(command);
  const actions = target === undefined ? null : moveLock(lockFd, target);
  const attributes = spawnAttributes();
  const envp = new StringArray(environment(command.env));
  const pid = new Int32Array(1);
  restoreIgnored();
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
  let failure: Code | undefined;
  if (childrenWereIgnored()) failure = becomeIn(spawn, strings);
  else {
    failure = spawn(strings);
    if (failure === "ENOEXEC") failure = spawn(asScript(strings));
  }
  restoreEngineSignal();
  if (failure !== undefined) return { failure, lockFd };
  closeInherited(lockFd);
  return { pid: pid[0]!, lockFd };
}

/** Starts this program as `BECOME`, and waits until it has become the command, or has written why not into a pipe. */
function becomeIn(
  spawn: (strings: Uint8Array[]) => Code | undefined,
  strings: Uint8Array[],
): Code | undefined {
  const { pipe, read } = libc({
    pipe: { args: ["ptr"], returns: "i32" },
    read: { args: ["i32", "ptr", "u64"], returns: "i64" },
  });
  const ends = new Int32Array(2);
  const failure = failureOf(pipe(address(ends)));
  if (failure !== undefined) return failure;
  const [reader, writer] = [ends[0]!, ends[1]!];
  closeOnExec(reader);
  const started = spawn([...[...ourselves(), BECOME, String(writer)].map(cString), ...strings]);
  close(writer);
  const answer = new Uint8Array(64);
  const length = started === undefined ? Number(read(reader, address(answer), answer.length)) : 0;
  close(reader);
  return started ?? (length > 0 ? new TextDecoder().decode(answer.subarray(0, length)) : undefined);
}

/** The other side of `becomeIn`. Returns only where that fails. @param args the arguments behind `BECOME` */
export function become([writer, ...argv]: readonly string[]): void {
  const pipe = Number(writer);
  ignoreChildren();
  write(pipe, execInto({ argv, env: {}, lockFd: pipe, lockAt: "closed" }).failure);
}

/** Tells a refused fork, as by a seccomp filter, from a refused execve(2): a directory cannot be executed (`EACCES`). */
export function canStartProcesses(): boolean {
  const argv = new StringArray([cString("/")]);
  const errno = c.posix_spawnp(address(new Int32Array(1)), argv.first, null, null, argv.address, null);
  return errno !== 0 && errorCode(errno) === "EACCES";
}

/** The command's signals: the mask that we were started with, and default actions where Bun has changed them. */
function spawnAttributes(): Uint8Array {
  const attributes = new Uint8Array(512);
  const defaults = signalSet(...lostActions());
  // glibc ignores its own two in the command unless they are in the set.
  if (linux) defaults.set([defaults[3]! | 0x80, defaults[4]! | 0x01], 3);
  c.posix_spawnattr_init(address(attributes));
  c.posix_spawnattr_setflags(address(attributes), POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  c.posix_spawnattr_setsigdefault(address(attributes), address(defaults));
  c.posix_spawnattr_setsigmask(address(attributes), address(maskAtStart));
  return attributes;
}

/**
 * The command as execvp(3), and so every shell, runs a file without a known format: as a script, by the path where it is
 * found. A relative directory of PATH stays relative.
 */
function asScript([name, ...args]: Uint8Array[]): Uint8Array[] {
  return [cString("/bin/sh"), name!.includes(SLASH) ? name! : (inPath(name!) ?? name!), ...args];
}

const SLASH = 47;
const COLON = 58;

/** The first executable file of this name in PATH, as bytes that end with a NUL. */
function inPath(name: Uint8Array): Uint8Array | undefined {
  const variable = encoder.encode("PATH=");
  const entry = environment({}).find((entry) => variable.every((byte, i) => entry[i] === byte));
  const path = entry?.subarray(variable.length) ?? cString("/bin:/usr/bin");
  for (let start = 0; start < path.length; ) {
    let end = path.indexOf(COLON, start);
    if (end < 0) end = path.length - 1; // the NUL
    const directory = path.subarray(start, end);
    const found = directory.length === 0 ? name : Buffer.concat([directory, Uint8Array.of(SLASH), name]);
    const file = found.subarray(0, -1);
    const isDirectory = access(Buffer.concat([file, encoder.encode("/.")]), ACCESS.X) === undefined;
    if (!isDirectory && access(file, ACCESS.X) === undefined) return found;
    start = end + 1;
  }
  return undefined;
}

function stringsOf({ shell, argv }: Command): Uint8Array[] {
  const strings = rawArguments(argv);
  return shell === undefined ? strings : [cString(shell), cString("-c"), ...strings];
}

/** What the child does before it becomes the command: posix_spawn_file_actions_adddup2(3). */
function moveLock(lockFd: number, target: number): Uint8Array {
  const { posix_spawn_file_actions_init, posix_spawn_file_actions_adddup2 } = libc({
    posix_spawn_file_actions_init: { args: ["ptr"], returns: "i32" },
    posix_spawn_file_actions_adddup2: { args: ["ptr", "i32", "i32"], returns: "i32" },
  });
  const actions = new Uint8Array(512);
  posix_spawn_file_actions_init(address(actions));
  posix_spawn_file_actions_adddup2(address(actions), lockFd, target);
  return actions;
}

/**
 * Replaces this process with the command: execve(2). Returns only when that fails, with the code.
 * @throws {LockFileError} when the lock's descriptor cannot be handed on
 */
export function execInto(command: Command): LockDescriptor & { failure: Code } {
  const { lockFd, target } = prepareDescriptors(command);
  if (target !== undefined) duplicate(lockFd, target);
  for (const signal of lostActions()) setDefault(signal);
  for (const [key, value] of Object.entries(command.env))
    c.setenv(address(cString(key)), address(cString(value)), 1);
  const strings = stringsOf(command);
  const exec = (strings: Uint8Array[]): Code => {
    const argv = new StringArray(strings);
    return failureOf(c.execvp(argv.first, argv.address))!;
  };
  restoreIgnored();
  if (childrenWereIgnored()) ignoreChildren();
  unblockSignals();
  let failure = exec(strings);
  if (failure === "ENOEXEC") failure = exec(asScript(strings)); // musl's execvp(3) leaves it to us
  return { failure, lockFd };
}
