/** `exclusive run`: run a command under a lock. */
import { requestFor } from "../acquire.ts";
import { milliseconds } from "../duration.ts";
import { CannotAcquireLock, LockTimeout, printable } from "../errors.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { nearest, parseOptions } from "./cli/options.ts";
import { LEASE, whereOf } from "./cli/store-options.ts";
import { heldBy } from "./output/describe-holder.ts";
import { Log } from "./output/print.ts";
import { POLICIES, type RunPlan } from "./run/run-plan.ts";
import { runWithFileLock } from "./run/with-file-lock.ts";

export const OPTIONS = {
  wait: { short: "w", help: "wait for the lock, without limit" },
  timeout: { short: "t", value: "DURATION", help: "wait at most so long (0: do not wait)" },
  "if-held": { value: "fail|skip|coalesce|replace", help: "what to do when it is held" },
  shared: { short: "s", help: "share the lock with others that share it" },
  slots: { value: "N", help: "let N hold the lock at a time" },
  exec: { help: "become the command: no wrapper process stays" },
  "conflict-exit-code": { short: "E", value: "N", help: "exit status when the lock is held (default 75)" },
  label: { value: "TEXT", help: "text for people, kept with the lock" },
  keep: { help: "leave the lock file in place, emptied" },
  file: { value: "PATH", help: "lock this existing file or directory as it is" },
  dir: { value: "DIR", help: "directory of the lock files" },
  ...LEASE,
  quiet: { short: "q", help: "say nothing" },
  verbose: { short: "v", help: "say when the lock is acquired and released" },
  "log-format": { value: "text|json", help: "json: one object a line, durations in seconds" },
} as const;

/**
 * Acquires the lock, runs the command, and ends as the command ended. Resolves with an exit status where the command was
 * not run.
 */
export function run(args: string[]): Promise<number> {
  return execute(plan(args));
}

/**
 * What a command line asks for. Reads it, the environment and `--store-file`, and acquires nothing.
 * @throws {UsageError} {TypeError} {RangeError} for a command line that is wrong
 */
export function plan(args: string[]): RunPlan {
  const { values, rest } = parseOptions(args, OPTIONS);
  const [name, ...tail] = rest;
  const argv = tail[0] === "--" ? tail.slice(1) : tail;
  if (name === undefined) throw new UsageError("NAME is missing");
  if (argv.length === 0) throw new UsageError("COMMAND is missing");
  const policy = oneOf("--if-held", values["if-held"], POLICIES) ?? "fail";
  const format = oneOf("--log-format", values["log-format"], ["text", "json"]);
  const conflictStatus =
    wholeNumber("--conflict-exit-code", values["conflict-exit-code"], 255) ?? EXIT.TEMPORARY_FAILURE;
  const { label, keep, file, shared, quiet, verbose, ttl } = values;
  if (policy === "coalesce" && file !== undefined)
    throw new UsageError("--if-held coalesce does not go with --file");
  if (policy === "replace" && values.slots !== undefined)
    throw new UsageError("--if-held replace does not go with --slots");
  const timeout = values.timeout === undefined ? undefined : milliseconds(values.timeout);
  const where = whereOf(values);
  const slots = wholeNumber("--slots", values.slots, 64);
  if ("url" in where && values.exec)
    throw new UsageError("--exec does not go with a store: somebody must stay and renew the lease");
  return {
    argv,
    request: requestFor({ name, shared, label, slots, file }),
    store: "url" in where ? { url: where.url, ttl } : { dir: where.dir, file, keep },
    exec: values.exec ?? false,
    policy,
    wait: values.wait || policy === "coalesce" || policy === "replace",
    timeout,
    conflictStatus,
    verbosity: { quiet, verbose, json: format === "json" },
  };
}

/**
 * A free lock in a file is acquired, and the command started, before this function first waits: what the engine starts
 * with the event loop's first turn costs more than everything here.
 */
async function execute(plan: RunPlan): Promise<number> {
  const log = new Log(plan.verbosity, plan.request.name);
  try {
    if (!("url" in plan.store)) return await runWithFileLock(plan, plan.store, log);
    Bun.unsafe.setJITPolicy(1); // see build.ts
    const { runWithLease } = await import("./run/with-lease.ts");
    return await runWithLease(plan, plan.store, log);
  } catch (error) {
    if (error instanceof CannotAcquireLock) return reportRefusal(error, plan, log);
    throw error;
  }
}

/** @returns the exit status */
function reportRefusal(error: CannotAcquireLock, { policy, conflictStatus }: RunPlan, log: Log): number {
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
  return conflictStatus;
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
