/**
 * flock(1): behaves as util-linux's `flock`, with the same messages, so that scripts written for it run unchanged.
 *
 * The file is locked as it is: created where flock(1) creates it, never written to, never deleted, and the lock ends when
 * its last descriptor is closed. The differences, and their reasons, stand in docs/flock.md.
 */
import { defineCommand } from "citty";
import { inheritedDescriptors, isInherited } from "../os/descriptors.ts";
import { errorText } from "../os/errors.ts";
import { write } from "../os/files.ts";
import { LOCK } from "../os/flock.ts";
import { loginShell } from "../os/host.ts";
import type { Code } from "../os/libc.ts";
import { forgetIgnoredChildren } from "../os/signal-mask.ts";
import { dieBySignal } from "../os/signals.ts";
import { type Command, execInto, rawArguments, start } from "../os/spawn.ts";
import { GetoptError, getopt, type LongOption } from "./flock/getopt.ts";
import { acquire, bytesOf, EX, Failure, type Options, TargetFile } from "./flock/lock.ts";
import { float, int32, NotANumber, OutOfRange, size } from "./flock/numbers.ts";
import { supervise } from "./run/supervise.ts";

/** The options are read by `flock/getopt.ts`, as flock(1) reads them: the definition has none. */
export default defineCommand({
  meta: {
    name: "flock",
    description: "flock(1): run a command while holding a lock on a file",
    examples: [
      ["flock -n job.lock ./job.sh", "as util-linux's flock(1), every option"],
      ["flock --help", ""],
    ],
  },
  args: {
    file: { type: "positional", description: "the file or directory to lock" },
    command: { type: "positional", valueHint: "COMMAND [ARG...]", description: "the command to run" },
  },
  run: ({ rawArgs }) => flockFront(rawArgs, "exclusive flock"),
});

const LETTERS = "sexnoFuw:E:hV?";
const LONG: readonly LongOption[] = [
  { name: "shared", key: "s" },
  { name: "exclusive", key: "x" },
  { name: "unlock", key: "u" },
  { name: "nonblocking", key: "n" },
  { name: "nb", key: "n" },
  { name: "timeout", key: "w", takesValue: true },
  { name: "wait", key: "w", takesValue: true },
  { name: "conflict-exit-code", key: "E", takesValue: true },
  { name: "close", key: "o" },
  { name: "no-fork", key: "F" },
  { name: "verbose", key: "verbose" },
  { name: "fcntl", key: "fcntl" },
  { name: "start", key: "start", takesValue: true },
  { name: "length", key: "length", takesValue: true },
  { name: "fd", key: "fd", takesValue: true, unabbreviated: true },
  { name: "help", key: "h" },
  { name: "version", key: "V" },
];

const usage = (program: string) => `
Usage:
 ${program} [options] <file>|<directory> <command> [<argument>...]
 ${program} [options] <file>|<directory> -c <command>
 ${program} [options] <file descriptor number>
 ${program} [options] --fd <file descriptor number> [<command> [<argument>...]]

Manage file locks from shell scripts.

Options:
 -s, --shared             get a shared lock
 -x, --exclusive          get an exclusive lock (default)
 -u, --unlock             remove a lock
 -n, --nb, --nonblocking  fail rather than wait
 -w, --timeout <secs>     wait for a limited amount of time
 -E, --conflict-exit-code <number>  exit code after conflict or timeout
 -o, --close              close file descriptor before running command
 -c, --command <command>  run a single command string through the shell
 -F, --no-fork            execute command without forking
     --wait               same as --timeout
     --fcntl              use fcntl(F_OFD_SETLK) rather than flock()
     --start <offset>     starting offset for lock (implies --fcntl)
     --length <number>    number of bytes to lock (implies --fcntl)
     --fd <number>        lock this file descriptor, and run a command
     --verbose            increase verbosity

 -h, --help               display this help
 -V, --version            display version

For more details see flock(1).
`;

function textOf(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes.subarray(0, -1)) text += String.fromCharCode(byte); // without the NUL
  return text;
}

let writeFailure: Code | undefined;
let isMute = false;

/** Writes to stdout. flock(1) reports a failure, there or on stderr, at its end: its status is 1. */
function say(text: string): void {
  const failure = write(1, bytesOf(text));
  if (failure !== undefined && failure !== "EPIPE") writeFailure = failure;
}

/**
 * @param args the arguments behind the program's name: the last ones of this process
 * @param called the name that the program was called by: argv[0]
 * @returns the exit status
 */
export async function flockFront(args: readonly string[], called: string): Promise<number> {
  inheritedDescriptors(); // before this process opens any
  const program = called.slice(called.lastIndexOf("/") + 1);
  const complain = (name: string, message: string, help = false) => {
    const hint = help ? `Try '${program} --help' for more information.\n` : "";
    const said = message === "" ? hint : `${name}: ${message}\n${hint}`;
    // Bun puts /dev/null in the place of a closed stderr.
    isMute ||= said !== "" && (write(2, bytesOf(said)) !== undefined || !isInherited(2));
  };
  let status: number;
  try {
    status = await run(args, program);
  } catch (error) {
    if (error instanceof Failure) {
      status = error.status;
      complain(program, error.message, error.help);
    } else if (error instanceof GetoptError) {
      status = EX.USAGE;
      complain(called, error.message, true);
    } else {
      throw error;
    }
  }
  if (writeFailure !== undefined) complain(program, `write error: ${errorText(writeFailure)}`);
  return writeFailure !== undefined || isMute ? EX.FAILURE : status;
}

async function run(args: readonly string[], program: string): Promise<number> {
  if (args.length === 0) throw new Failure(EX.USAGE, "not enough arguments", true);
  const parsed = parse(rawArguments(args).map(textOf));
  if (parsed === "help" || parsed === "version") {
    const { version } = await import("./cli/version.ts");
    say(parsed === "help" ? usage(program) : `${program} from ${await version()}, as in util-linux 2.42\n`);
    return EX.OK;
  }
  const { options, operands } = parsed;
  if (options.noFork && options.close)
    throw new Failure(EX.USAGE, "the --no-fork and --close options are incompatible");
  const named = options.fd === undefined;
  const commandAt = named ? 1 : 0;
  const command = commandOf(operands.slice(commandAt), args.slice(args.length - operands.length + commandAt));
  if (named && operands.length === 0)
    throw new Failure(EX.USAGE, "requires file descriptor, file or directory");
  const file = named && command ? new TargetFile(operands[0]!, options) : undefined;
  const fd = file ? file.open() : (options.fd ?? number(int32, operands[0]!, "bad file descriptor"));

  const begun = performance.now();
  const lockFd = acquire(fd, file, options);
  if (options.verbose) {
    const took = Math.round((performance.now() - begun) * 1000);
    const seconds = Math.floor(took / 1e6);
    const micros = String(took % 1e6).padStart(6, "0");
    say(`${program}: getting lock took ${seconds}.${micros} seconds\n`);
  }
  if (!command) return EX.OK;
  if (options.verbose) say(`${program}: executing ${command.name}\n`);
  const lockAt = options.close ? "closed" : file ? "lowest" : "inherited";
  return execute({ ...command, env: {}, lockFd, lockAt }, command.name, options.noFork);
}

/** Parsed options and operands, or "help"/"version". */
function parse(args: string[]): { options: Options; operands: string[] } | "help" | "version" {
  const options: Options = {
    operation: LOCK.EX,
    nonblocking: false,
    timeout: undefined,
    conflict: 1,
    close: false,
    noFork: false,
    verbose: false,
    fcntl: false,
    start: 0n,
    length: 0n,
    fd: undefined,
  };
  // With a file, `-c` stands behind it; with --fd it comes first, and ends the options.
  const reading = getopt(args, LETTERS, LONG, (arg) => options.fd !== undefined && isShell(arg));
  let next = reading.next();
  for (; !next.done; next = reading.next()) {
    const [key, value] = next.value;
    if (key === "s") options.operation = LOCK.SH;
    else if (key === "e" || key === "x") options.operation = LOCK.EX;
    else if (key === "u") options.operation = LOCK.UN;
    else if (key === "n") options.nonblocking = true;
    else if (key === "o") options.close = true;
    else if (key === "F") options.noFork = true;
    else if (key === "verbose") options.verbose = true;
    else if (key === "fcntl") options.fcntl = true;
    else if (key === "w") options.timeout = number(float, value, "invalid timeout value");
    else if (key === "E") {
      options.conflict = number(int32, value, "invalid exit code");
      if (options.conflict < 0 || options.conflict > 255)
        throw new Failure(EX.USAGE, "exit code out of range (expected 0 to 255)");
    } else if (key === "start") {
      options.start = number(size, value, "invalid as start offset", true);
      options.fcntl = true;
    } else if (key === "length") {
      options.length = number(size, value, "invalid as length of lock range", true);
      options.fcntl = true;
    } else if (key === "fd") options.fd = number(int32, value, "bad file descriptor");
    else if (key === "h") return "help";
    else if (key === "V") return "version";
    else throw new Failure(EX.USAGE, "", true);
  }
  return { options, operands: next.value };
}

/** @throws {Failure} with the message `what`, and the reason where the C library names one */
function number<T>(read: (text: string) => T, text: string, what: string, reason = false): T {
  try {
    return read(text);
  } catch (error) {
    const outOfRange = error instanceof OutOfRange;
    if (!outOfRange && !(error instanceof NotANumber)) throw error;
    const because = reason || outOfRange ? `: ${errorText(outOfRange ? "ERANGE" : "EINVAL")}` : "";
    throw new Failure(EX.USAGE, `${what}: '${text}'${because}`);
  }
}

const isShell = (operand: string): boolean => operand === "-c" || operand === "--command";

/**
 * The command, as operands name it.
 * @param args the same operands, as this process has them
 */
function commandOf(
  operands: string[],
  args: string[],
): (Pick<Command, "argv" | "shell"> & { name: string }) | undefined {
  const [name] = operands;
  if (name === undefined) return undefined;
  if (!isShell(name)) return { argv: args, name };
  if (operands.length !== 2) throw new Failure(EX.USAGE, `${name} requires exactly one command argument`);
  const shell = process.env.SHELL || loginShell() || "/bin/sh";
  return { argv: args.slice(1), shell, name: shell };
}

/** @returns the exit status: the command's, 128+N where signal N killed it */
function execute(command: Command, name: string, noFork: boolean): number {
  forgetIgnoredChildren();
  const { pid, failure } = noFork ? { ...execInto(command), pid: undefined } : start(command);
  if (failure !== undefined) {
    if (failure === "EAGAIN" && !noFork) throw new Failure(EX.OSERR, `fork failed: ${errorText(failure)}`);
    const status = failure === "ENOMEM" ? EX.OSERR : EX.UNAVAILABLE;
    throw new Failure(status, `failed to execute ${name}: ${errorText(failure)}`);
  }
  const seen = new Set<number>();
  const ending = supervise(pid, seen);
  if ("exited" in ending) return ending.exited;
  // flock(1) does not outlive a signal that was sent to it as well: so a shell's loop ends on Ctrl-C.
  if (seen.has(ending.killed)) dieBySignal(ending.killed);
  return 128 + ending.killed;
}
