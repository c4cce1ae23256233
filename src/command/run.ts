/** `exclusive run`: wrap a command in a lock. */
import { defineCommand } from "citty";
import { milliseconds } from "../duration.ts";
import { CannotAcquireLock, LockTimeout, printable } from "../errors.ts";
import { thisProcess } from "../holder.ts";
import { type AcquireOptions, Lock, type LockOptions } from "../lock.ts";
import { E, errorText } from "../os/libc.ts";
import { become, type Command, start, warmUp } from "../os/spawn.ts";
import type { FileLease } from "../store/file/file-store.ts";
import { defineArgs } from "./cli/define.ts";
import { CommandError, EXIT, UsageError } from "./cli/exit-status.ts";
import { LEASE, NAME, lockLocation as whereOf } from "./cli/lock-options.ts";
import { type OptionValues, parseOptions } from "./cli/options.ts";
import { nearest } from "./cli/suggest.ts";
import { heldBy } from "./output/describe-holder.ts";
import { Log } from "./output/print.ts";
import { endLike, supervise } from "./run/supervise.ts";

const ARGS = defineArgs({
  ...NAME,
  command: {
    type: "positional",
    valueHint: "[--] COMMAND [ARG...]",
    description: "the command to run, and its arguments",
  },
  wait: { type: "boolean", alias: "w", description: "wait for the lock, without limit" },
  timeout: {
    type: "string",
    alias: "t",
    valueHint: "DURATION",
    description: "wait up to DURATION (0: don't wait)",
    details:
      "A duration is a number of seconds, or a number with a unit (`ms`, `s`, `m`, `h`, `d`), or several, as in `1h30m`.",
  },
  "if-held": {
    type: "enum",
    options: ["fail", "skip", "coalesce", "replace"],
    description: "what to do when it is held",
    details:
      "`fail` (the default): exit with status 75. `skip`: exit with status 0. `coalesce`: wait, unless another run is already queued, and then exit with status 0: the queued run has not begun, so it does the work of this one too. `replace`: stop the holder as `exclusive stop` does, then run.",
  },
  shared: {
    type: "boolean",
    alias: "s",
    description: "share the lock with others that share it",
    details: "A run without this option is kept out.",
  },
  slots: {
    type: "string",
    valueHint: "N",
    description: "allow up to N holders at once",
    details: "The slots are the locks `NAME.1` to `NAME.N`.",
  },
  exec: {
    type: "boolean",
    description: "replace this process with the command",
    details: "The lock ends with the last process that has its descriptor.",
  },
  "conflict-exit-code": {
    type: "string",
    alias: "E",
    valueHint: "N",
    description: "exit status when the lock is held (default 75)",
  },
  label: { type: "string", valueHint: "TEXT", description: "note shown by list and status" },
  keep: {
    type: "boolean",
    description: "leave the lock file in place, emptied",
    details: "For a path that another program locks too.",
  },
  file: {
    type: "string",
    valueHint: "PATH",
    description: "lock this existing file or directory as it is",
    details: "It is neither written to nor deleted.",
  },
  dir: {
    type: "string",
    valueHint: "DIR",
    description: "directory of the lock files",
    details: "Default: `EXCLUSIVE_DIR`.",
  },
  ...LEASE,
  quiet: { type: "boolean", alias: "q", description: "no messages except errors" },
  verbose: { type: "boolean", alias: "v", description: "report when the lock is acquired and released" },
  "log-format": {
    type: "enum",
    options: ["text", "json"],
    description: "with json, one object a line, durations in seconds",
  },
});

export default defineCommand({
  meta: {
    name: "run",
    description: "run a command while holding a lock",
    examples: [
      ["run backup -- ./backup.sh", "refuse while it runs (exit 75)"],
      ["run --wait backup -- ./backup.sh", "wait for the running job to finish"],
      ["run -t 10m backup -- ./backup.sh", "wait up to 10 minutes"],
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => run(rawArgs),
});

const POLICIES = ["fail", "skip", "coalesce", "replace"] as const;
type Policy = (typeof POLICIES)[number];
type Values = OptionValues<typeof ARGS>;

/**
 * Takes the lock, runs the command, and ends as the command ended; returns a status where it did not run. A lock that
 * is free is taken, and the command started, without a turn of the event loop: what the engine starts beside the first
 * one costs more than all that is done here.
 */
export function run(args: string[]): number | Promise<number> {
  const { values, rest } = parseOptions(args, ARGS);
  const [name, ...tail] = rest;
  const argv = tail[0] === "--" ? tail.slice(1) : tail;
  if (name === undefined) throw new UsageError("NAME is missing");
  if (argv.length === 0) throw new UsageError("COMMAND is missing");
  const policy = oneOf("--if-held", values["if-held"], POLICIES) ?? "fail";
  const format = oneOf("--log-format", values["log-format"], ["text", "json"]);
  const conflict =
    wholeNumber("--conflict-exit-code", values["conflict-exit-code"], 255) ?? EXIT.TEMPORARY_FAILURE;
  if (policy === "coalesce" && values.file !== undefined)
    throw new UsageError("--if-held coalesce does not go with --file");
  if (policy === "replace" && values.slots !== undefined)
    throw new UsageError("--if-held replace does not go with --slots");
  if (values.timeout !== undefined) milliseconds(values.timeout); // an error is told also where the lock is free
  const { label, keep, file, shared } = values;
  const where = whereOf(values);
  const options = { name, label, shared, slots: wholeNumber("--slots", values.slots, 64) };
  const log = new Log({ quiet: values.quiet, verbose: values.verbose, json: format === "json" }, name);
  const held = (error: unknown): number => {
    if (error instanceof CannotAcquireLock) return refused(error, policy, conflict, log);
    throw error;
  };
  if ("url" in where) return inStore(where.url, options, values, argv, policy, log).catch(held);
  const lock = new Lock({ ...options, keep, file, dir: where.dir });
  const acquired = (): never => {
    log.tell("acquired", { wait: log.elapsed, lockfile: lock.lockfile }, () => {
      return `acquired '${printable(name)}' after ${log.elapsed} s (${printable(lock.lockfile)})`;
    });
    return values.exec ? asCommand(lock, argv) : underLock(lock, argv, log);
  };
  try {
    lock.acquireSync();
  } catch (error) {
    const waits =
      values.wait || values.timeout !== undefined || policy === "coalesce" || policy === "replace";
    if (!waits || !(error instanceof CannotAcquireLock)) return held(error);
    return acquire(lock, policy, values, log).then(acquired, held);
  }
  return acquired();
}

/** The same with a lock across the network. */
async function inStore(
  url: string,
  lock: LockOptions & { name: string },
  values: Values,
  argv: string[],
  policy: Policy,
  log: Log,
): Promise<never> {
  if (values.exec)
    throw new UsageError("--exec does not go with a store: somebody must stay and renew the lease");
  Bun.unsafe.setJITPolicy(1); // see build.ts
  const { runLeased } = await import("./run/with-lease.ts");
  const { wait = false, timeout, ttl } = values;
  return runLeased({ url, ttl, lock, argv, policy, wait, timeout, log, cannotStart });
}

/** Ends the threads that we have waited with: once the command has been started. */
let endThreads: (() => void) | undefined;

/**
 * Waits for a lock that is held.
 * @throws {CannotAcquireLock} when the lock is not to be had, as far as the options go
 */
async function acquire(lock: Lock, policy: Policy, { wait, timeout }: Values, log: Log): Promise<void> {
  const coalesce = policy === "coalesce";
  const replace = policy === "replace" ? (await import("./stop.ts")).replaceHolder : undefined;
  const [{ showWaiting }, { keepThreads }] = await Promise.all([
    import("./output/wait-line.ts"),
    import("../os/flock-thread.ts"),
  ]);
  using _line = showWaiting(lock, timeout, log);
  if (replace) return await replace(lock, timeout === undefined ? undefined : milliseconds(timeout));
  warmUp();
  thisProcess();
  endThreads = keepThreads();
  // The time runs from our start: what the engine has used up since then is part of it.
  const given = timeout === undefined ? undefined : milliseconds(timeout);
  const left = given && Math.max(1, given - log.elapsed * 1000);
  const options: AcquireOptions = { wait: wait || coalesce, timeout: left, coalesce };
  await lock.acquire(options);
}

function refused(error: CannotAcquireLock, policy: Policy, conflict: number, log: Log): number {
  const { name, holder } = error;
  const late = error instanceof LockTimeout;
  const details = { wait: log.elapsed, holder };
  if (policy === "skip" || (policy === "coalesce" && !late)) {
    const why = policy === "skip" ? "skipped" : "somebody already waits to run it";
    log.tell("skipped", details, () => `${heldBy(name, holder)}: ${why}`);
    return EXIT.OK;
  }
  log.tell("refused", details, () => {
    if (policy === "replace" && !late) return error.message; // why the holder was not stopped
    return late ? `gave up after ${log.elapsed} s: ${heldBy(name, holder)}` : heldBy(name, holder);
  });
  return conflict;
}

function commandOf(lock: Lock, argv: string[]): { lease: FileLease; command: Command } {
  const lease = lock.lease as FileLease;
  const env = { EXCLUSIVE_NAME: lock.name, EXCLUSIVE_LOCKFILE: lock.lockfile };
  return { lease, command: { argv, env, lockFd: lease.fd } };
}

/** The command runs as our child, and the lock is given back when it ends. */
function underLock(lock: Lock, argv: string[], log: Log): never {
  const { lease, command } = commandOf(lock, argv);
  const acquired = log.elapsed;
  const { pid, lockFd } = start(command);
  endThreads?.();
  lease.fd = lockFd;
  if (pid < 0) {
    lease.releaseSync();
    throw cannotStart(argv[0]!, -pid);
  }
  lease.recordCommand(pid);
  const ending = supervise(pid);
  lease.releaseSync();
  const hold = Number((log.elapsed - acquired).toFixed(3));
  log.tell("released", { hold, ...ending }, () => `released '${printable(lock.name)}' after ${hold} s`);
  endLike(ending);
}

/** This process becomes the command, and the lock lasts as long as anybody has its descriptor. */
function asCommand(lock: Lock, argv: string[]): never {
  const { lease, command } = commandOf(lock, argv);
  const { errno, lockFd } = become(command);
  lease.fd = lockFd;
  lease.releaseSync();
  throw cannotStart(argv[0]!, errno);
}

function cannotStart(command: string, errno: number): CommandError {
  const status = errno === E.ENOENT ? EXIT.NOT_FOUND : EXIT.NOT_EXECUTABLE;
  return new CommandError(`cannot run ${printable(command)}: ${errorText(errno)}`, status);
}

function oneOf<const T extends string>(
  option: string,
  value: string | undefined,
  choices: readonly T[],
): T | undefined {
  if (value === undefined || (choices as readonly string[]).includes(value)) return value as T | undefined;
  const meant = nearest(value, choices);
  throw new UsageError(
    `${option} takes ${choices.join(", ")}, not '${printable(value)}'${meant ? ` (did you mean ${meant}?)` : ""}`,
  );
}

function wholeNumber(option: string, value: string | undefined, most: number): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d+$/.test(value) && Number(value) <= most) return Number(value);
  throw new UsageError(`${option} takes a whole number up to ${most}, not '${printable(value)}'`);
}
