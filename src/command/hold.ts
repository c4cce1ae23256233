/** `exclusive hold`: take a lock and keep it without a command. */

import { defineCommand } from "citty";
import { acquireSync, releaseSync, requestFor } from "../acquire.ts";
import { milliseconds } from "../duration.ts";
import { CannotAcquireLock, printable } from "../errors.ts";
import { shellWord } from "../os/processes.ts";
import { FileStore } from "../store/file/file-store.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { DIR, lockLocation, NAME, requireName } from "./cli/lock-options.ts";
import { LOG_FILE, logFileOf } from "./cli/log-options.ts";
import { parseOptions } from "./cli/options.ts";
import { describeHeld } from "./output/describe-holder.ts";
import { Describer } from "./output/describe-processes.ts";
import { EventLog } from "./output/event-log.ts";
import { jsonLine, print } from "./output/print.ts";
import { leaveToKeeper } from "./run/keeper.ts";

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
      "Environment: EXCLUSIVE_DIR, EXCLUSIVE_LOG_FILE",
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => hold(rawArgs),
});

/** Takes the lock, and leaves it to a process that does nothing else: this one ends at once. */
export async function hold(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, ARGS);
  if (rest.length > 1)
    throw new UsageError(
      `hold takes NAME alone (did you mean exclusive run ${rest.map(shellWord).join(" ")}?)`,
    );
  const name = requireName(rest);
  const { label, quiet, json } = values;
  const time = values.for === undefined ? undefined : milliseconds(values.for);
  if (time === 0) throw new UsageError("--for takes a duration longer than 0, such as 2h");
  const where = lockLocation(values);
  if ("url" in where) throw new UsageError("hold is for locks in files: it cannot be combined with a store");
  const store = new FileStore({ dir: where.dir });
  const request = requestFor({ name, label });
  const log = new EventLog({ quiet }, name, { logFile: logFileOf(values), label });
  try {
    const lease = acquireSync(store, request);
    log.record("acquired", { waitSeconds: 0, lockfile: lease.location });
    const kept = leaveToKeeper(lease, name, time);
    if (kept === undefined) {
      releaseSync(lease);
      log.record("released", { holdSeconds: 0, reason: "no process could be started that keeps it" });
      return EXIT.CANNOT_RUN;
    }
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
