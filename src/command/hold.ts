/** `exclusive hold`: take a lock and keep it without a command. */

import { defineCommand } from "citty";
import { acquireSync, releaseSync, requestFor } from "../acquire.ts";
import { milliseconds } from "../duration.ts";
import { CannotAcquireLock, printable } from "../errors.ts";
import { untilAfter } from "../holder.ts";
import { shellWord } from "../os/processes.ts";
import type { FileStore } from "../store/file/file-store.ts";
import type { Request } from "../store/store.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { DIR, LEASE, lockLocation, NAME, openStoreOf, requireName } from "./cli/lock-options.ts";
import { LOG_FILE, logFileOf } from "./cli/log-options.ts";
import { parseOptions } from "./cli/options.ts";
import { describeHeld, untilInWords } from "./output/describe-holder.ts";
import { Describer } from "./output/describe-processes.ts";
import { EventLog } from "./output/event-log.ts";
import { jsonLine, print } from "./output/print.ts";
import { leaveToKeeper } from "./run/keeper.ts";
import { BARE_DURATION } from "./run/operands.ts";

const ARGS = defineArgs({
  ...NAME,
  for: {
    type: "string",
    valueHint: "DURATION",
    description: "give the lock back after DURATION",
    details: "Default: it is kept until `exclusive stop` NAME, or a reboot.",
  },
  label: {
    type: "string",
    valueHint: "TEXT",
    description: "note shown by list, status and each refusal",
    details: "Its first 1024 characters are kept.",
  },
  quiet: { type: "boolean", alias: "q", description: "no messages except errors" },
  json: { type: "boolean", description: "print the lock's status as one JSON object" },
  ...LOG_FILE,
  ...DIR,
  ttl: LEASE.ttl,
});

export default defineCommand({
  meta: {
    name: "hold",
    description: "keep a lock without a command",
    examples: [
      ["hold --for 2h --label maintenance deploy", "no deploy for two hours"],
      ["hold deploy", "until stop deploy"],
    ],
    notes: [
      "Exit status: 0 taken, 75 held by another process",
      "Environment: EXCLUSIVE_DIR, EXCLUSIVE_STORE, EXCLUSIVE_LOG_FILE",
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => hold(rawArgs),
});

/** Takes the lock, and leaves it to a process that does nothing else: this one ends at once. */
export async function hold(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, ARGS);
  if (rest.length > 1) {
    const [, time, ...more] = rest;
    const meant = BARE_DURATION.test(time!) && more.length === 0;
    const hint = meant ? `--for ${time}` : `exclusive run ${rest.map(shellWord).join(" ")}`;
    throw new UsageError(`hold takes NAME alone (did you mean ${hint}?)`);
  }
  const name = requireName(rest);
  const { label, quiet, json } = values;
  const time = values.for === undefined ? undefined : milliseconds(values.for);
  if (time === 0) throw new UsageError("--for takes a duration longer than 0, such as 2h");
  const where = lockLocation(values);
  const request = requestFor({ name, label });
  const log = new EventLog({ quiet }, name, { logFile: logFileOf(values), label });
  const store = openStoreOf(values);
  try {
    const kept =
      "url" in where
        ? await keepElsewhere(where.url, values.ttl, request, time, log)
        : keepHere(store as FileStore, request, time, log);
    if (kept === undefined) return EXIT.CANNOT_RUN;
    if (json) print(jsonLine(new Describer().describe(await store.status(name))));
    else if (!quiet) print(`'${printable(name)}' is ${kept}`);
    return EXIT.OK;
  } catch (error) {
    if (!(error instanceof CannotAcquireLock)) throw error;
    const { holder } = error;
    log.tell("refused", { waitSeconds: 0, holder }, () => describeHeld(name, holder));
    return EXIT.TEMPORARY_FAILURE;
  }
}

/** @returns until when, in words; undefined where no process can be started that keeps it */
function keepHere(store: FileStore, request: Request, time: number | undefined, log: EventLog) {
  const lease = acquireSync(store, request);
  log.record("acquired", { waitSeconds: 0, lockfile: lease.location });
  const kept = leaveToKeeper(lease, request.name, time);
  if (kept !== undefined) return kept;
  releaseSync(lease);
  log.record("released", { holdSeconds: 0, reason: "no process could be started that keeps it" });
  return undefined;
}

/** In a store, by a process that renews the lock. */
async function keepElsewhere(
  url: string,
  ttl: string | undefined,
  request: Request,
  time: number | undefined,
  log: EventLog,
): Promise<string> {
  const until = untilAfter(time);
  const order = { url, ttl: ttl === undefined ? undefined : milliseconds(ttl), time };
  const { keepInStore } = await import("./run/store-keeper.ts");
  const lockfile = await keepInStore({ ...order, request: { ...request, until } }, (reason) => {
    log.tell("waiting", { waitSeconds: log.elapsed, reason }, () => reason);
  });
  log.record("acquired", { waitSeconds: log.elapsed, lockfile });
  return untilInWords(until);
}
