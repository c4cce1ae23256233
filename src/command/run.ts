/** `exclusive run`: run a command under a lock. */

import { defineCommand } from "citty";
import { requestFor } from "../acquire.ts";
import { humanDuration, limitInWords, milliseconds } from "../duration.ts";
import {
  CannotAcquireLock,
  EndlessWait,
  LockFileError,
  LockTimeout,
  printable,
  StoreError,
  Superseded,
} from "../errors.ts";
import { logsInfo } from "../logger.ts";
import { defaultDirectory } from "../name.ts";
import { inheritedDescriptors } from "../os/descriptors.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { LEASE, lockLocation, NAME } from "./cli/lock-options.ts";
import { LOG_FILE, logFileOf } from "./cli/log-options.ts";
import { parseOptions } from "./cli/options.ts";
import { describeHeld, describeRunning } from "./output/describe-holder.ts";
import { EventLog } from "./output/event-log.ts";
import { printError } from "./output/print.ts";
import { operands } from "./run/operands.ts";
import { isOverdue } from "./run/overdue.ts";
import type { RunPlan } from "./run/run-plan.ts";
import { TIMES, timesOf } from "./run/run-times.ts";
import { runWithFileLock } from "./run/with-file-lock.ts";

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
    options: ["fail", "skip", "coalesce", "latest", "replace"],
    description: "what to do when it is held",
    details:
      "`fail` (the default): exit with status 75. `skip`: exit with status 0, without a word. `coalesce`: wait, but if another run is already queued, exit with status 0 as soon as that begins: it does the work of this one too. If it gives up, the next one takes its place. So it keeps the first of those that wait. `latest`: wait, and exit with status 0 as soon as a newer run with `latest` asks for the lock: at most one waits, the newest. `replace`: stop the holder as `exclusive stop` does, then run.",
  },
  ...TIMES,
  shared: {
    type: "boolean",
    alias: "s",
    description: "share the lock with others that share it",
    details:
      "A run without this option is kept out. It gets its turn when no reader is left: overlapping readers can keep it waiting.",
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
    details:
      "The lock ends with the last process that has its descriptor: not for a command that closes the descriptors it inherits, as some daemons do.",
  },
  close: {
    type: "boolean",
    alias: "o",
    description: "the command does not inherit the lock's descriptor",
    details:
      "For programs that complain of an open file they do not know, as LVM's. Its cost: the lock ends with this process, so a SIGKILL of it frees the lock while the command works on.",
  },
  inherit: {
    type: "boolean",
    description: "under the lock that the caller runs under, if any",
    details:
      "Where `exclusive held` NAME is true, and the lock is not shared unless this run shares it: run the command at once, without taking the lock. Else take it as usual.",
  },
  "conflict-exit-code": {
    type: "string",
    alias: "E",
    valueHint: "N",
    description: "exit status when the lock is held (default 75)",
  },
  label: {
    type: "string",
    valueHint: "TEXT",
    description: "note shown by list and status",
    details: "Its first 1024 characters are kept.",
  },
  keep: {
    type: "boolean",
    description: "leave the lock file in place, emptied",
    details: "For a path that another program locks too.",
  },
  file: {
    type: "string",
    valueHint: "PATH",
    description: "lock this existing file or directory as it is",
    details:
      "It is neither written to nor deleted. It must not be replaced by rename while it is locked: the next run would lock the new file.",
  },
  dir: {
    type: "string",
    valueHint: "DIR",
    description: "directory of the lock files",
    details: "Default: `EXCLUSIVE_DIR`, else `/var/lock` where every user may write there, else `/tmp`.",
  },
  ...LEASE,
  quiet: { type: "boolean", alias: "q", description: "no messages except errors" },
  verbose: { type: "boolean", alias: "v", description: "report when the lock is acquired and released" },
  "log-format": {
    type: "enum",
    options: ["text", "json"],
    description: "with json, one object a line, durations in seconds",
  },
  ...LOG_FILE,
  "on-event": {
    type: "string",
    valueHint: "CMD",
    description: "start this shell command at each event",
    details:
      "It sees `EXCLUSIVE_EVENT` and `EXCLUSIVE_NAME`, and gets the event on standard input as one line of JSON. It runs in a session of its own, and its output is discarded. Nothing waits for it: it can neither delay the command nor change its status.",
  },
});

export default defineCommand({
  meta: {
    name: "run",
    description: "run a command while holding a lock",
    examples: [
      ["run backup -- ./backup.sh", "refuse while it runs (exit 75)"],
      ["run --wait backup -- ./backup.sh", "wait for the running job to finish"],
    ],
    notes: [
      "Exit status: the command's; 75: held or timed out; 64: usage; 70: lock lost",
      "Environment: EXCLUSIVE_DIR, EXCLUSIVE_STORE, EXCLUSIVE_LOG_FILE (exclusive man)",
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => run(rawArgs),
});

/**
 * Acquires the lock, runs the command, and ends as the command ended. Resolves with an exit status where the command was
 * not run.
 */
export function run(args: string[]): Promise<number> {
  inheritedDescriptors(); // before this process opens any
  return execute(plan(args));
}

/**
 * What a command line asks for. Reads it, the environment and `--store-file`, and acquires nothing.
 * @throws {UsageError} {TypeError} {RangeError} for a command line that is wrong
 */
export function plan(args: string[]): RunPlan {
  const { values, rest } = parseOptions(args, ARGS);
  const policy = values["if-held"] ?? "fail";
  const conflictStatus =
    wholeNumber("--conflict-exit-code", values["conflict-exit-code"], 255) ?? EXIT.TEMPORARY_FAILURE;
  const { label, keep, file, shared, quiet, verbose } = values;
  if ((policy === "coalesce" || policy === "latest") && file !== undefined)
    throw new UsageError(`--if-held ${policy} cannot be combined with --file`);
  if (policy === "replace" && values.slots !== undefined)
    throw new UsageError("--if-held replace cannot be combined with --slots");
  const timeout = values.timeout === undefined ? undefined : milliseconds(values.timeout);
  const where = lockLocation(values);
  const ttl = values.ttl === undefined ? undefined : milliseconds(values.ttl);
  const slots = wholeNumber("--slots", values.slots, 64, 1);
  if (slots !== undefined && (file !== undefined || shared))
    throw new UsageError("--slots cannot be combined with --file or --shared");
  if ("url" in where && values.exec)
    throw new UsageError("--exec cannot be combined with a store: a wrapper must stay to renew the lease");
  if (values.exec && values.close)
    throw new UsageError("--close cannot be combined with --exec: no process would have the lock");
  // Last: a value that is NAME or COMMAND by mistake is reported as what it is.
  const { name, argv } = operands(args, rest, ARGS, values.wait);
  const times = timesOf(values, policy);
  const overdue = times.overdue && times.overdue / 1000;
  return {
    argv,
    ...times,
    request: { ...requestFor({ name, shared, label, slots, file }), overdue },
    store: "url" in where ? { url: where.url, ttl } : { dir: where.dir, file, keep },
    exec: values.exec ?? false,
    close: values.close ?? false,
    inherit: values.inherit ?? false,
    policy,
    wait: values.wait || ["coalesce", "latest", "replace"].includes(policy),
    timeout,
    conflictStatus,
    verbosity: {
      quiet,
      verbose: verbose ?? (logsInfo() || undefined),
      json: values["log-format"] === "json",
    },
    logFile: logFileOf(values),
    onEvent: values["on-event"] || undefined,
  };
}

/**
 * A free lock in a file is acquired, and the command started, before this function first waits: what the engine starts
 * with the event loop's first turn costs more than everything here.
 */
async function execute(plan: RunPlan): Promise<number> {
  const { name, label } = plan.request;
  const log = new EventLog(plan.verbosity, name, { ...plan, label });
  try {
    if (plan.inherit) await (await import("./run/with-inherited-lock.ts")).runIfInherited(plan, log);
    if (!("url" in plan.store)) {
      if (log.isVerbose && plan.store.file === undefined) await reportDirectory(plan.store.dir);
      return await runWithFileLock(plan, plan.store, log);
    }
    Bun.unsafe.setJITPolicy(1); // see build.ts
    const { runWithLease } = await import("./run/with-lease.ts");
    return await runWithLease(plan, plan.store, log);
  } catch (error) {
    if (error instanceof StoreError || error instanceof LockFileError)
      log.record("refused", { waitSeconds: log.elapsed, reason: error.message });
    if (!(error instanceof CannotAcquireLock)) throw error;
    const status = reportRefusal(error, plan, log);
    if (status !== EXIT.OK) await reportElsewhere(plan);
    return status;
  }
}

async function reportDirectory(dir: string | undefined): Promise<void> {
  const { describeDirectory } = await import("./output/lock-directory.ts");
  printError(`lock directory: ${describeDirectory(dir)}`);
}

async function reportElsewhere({ store, request, verbosity }: RunPlan): Promise<void> {
  if ("url" in store || store.file !== undefined || verbosity.quiet || verbosity.json) return;
  const { reportHeldElsewhere } = await import("./output/lock-directory.ts");
  await reportHeldElsewhere(store.dir ?? defaultDirectory().path, request.name);
}

/** @returns the exit status */
function reportRefusal(error: CannotAcquireLock, plan: RunPlan, log: EventLog): number {
  const { policy, conflictStatus, overdue } = plan;
  const { lock: name, holder } = error;
  const late = error instanceof LockTimeout;
  const endless = error instanceof EndlessWait;
  const details = { waitSeconds: log.elapsed, holder };
  if (error instanceof Superseded) {
    log.tell("superseded", details, () => `'${printable(name)}': a newer run waits in place of this one`);
    return EXIT.OK;
  }
  if (!endless && isOverdue(holder, overdue)) {
    log.tell("overdue", details, () => {
      return `overdue (more than ${limitInWords(overdue)}): ${describeHeld(name, holder)}`;
    });
    return conflictStatus;
  }
  if (!endless && (policy === "skip" || (policy === "coalesce" && !late))) {
    const reason = policy === "skip" ? undefined : "another run was already queued, and has begun";
    log.tell("skipped", { ...details, reason }, () => `skipped: ${reason ?? describeRunning(name, holder)}`);
    return EXIT.OK;
  }
  log.tell("refused", details, () => {
    if (endless) return `${error.message}${error.inherited ? "; use --inherit" : ""}`;
    if (policy === "replace" && !late) return error.message; // why the holder was not stopped
    return late
      ? `timed out after ${humanDuration(log.elapsed * 1000)}: ${describeHeld(name, holder)}`
      : describeHeld(name, holder);
  });
  return conflictStatus;
}

function wholeNumber(option: string, value: string | undefined, most: number, least = 0): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d+$/.test(value) && Number(value) >= least && Number(value) <= most) return Number(value);
  throw new UsageError(`${option} takes a whole number from ${least} to ${most}, not '${printable(value)}'`);
}
