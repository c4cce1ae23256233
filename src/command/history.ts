/** `exclusive history`: the runs of a lock, from the log file. */
import { defineCommand } from "citty";
import { LockFileError, printable, StoreError } from "../errors.ts";
import { recordedName } from "../events.ts";
import { checkName } from "../name.ts";
import { statusWithSlots } from "../store/look-up.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { DIR, type LocationValues, openStoreOf } from "./cli/lock-options.ts";
import { LOG_FILE, logFileOf } from "./cli/log-options.ts";
import { parseOptions } from "./cli/options.ts";
import { metrics } from "./history/metrics.ts";
import { readEvents } from "./history/read-events.ts";
import { Histories, LockHistory } from "./history/runs.ts";
import { describeHistory, type HeldNow, overviewTable, runTable } from "./history/table.ts";
import { jsonLine, print, printError, write } from "./output/print.ts";

const ARGS = defineArgs({
  name: { type: "positional", required: false, description: "the lock's name" },
  last: {
    type: "string",
    valueHint: "N",
    description: "show the last N runs (default 20)",
  },
  json: { type: "boolean", description: "print one JSON object; without NAME, an array of them" },
  prometheus: {
    type: "boolean",
    description: "print metrics for node_exporter's textfile collector",
    details:
      "`exclusive_held` is asked of the directory or store that `--dir` or `--store` names; the rest comes from the log file.",
  },
  "log-file": {
    ...LOG_FILE["log-file"],
    description: "the file that run --log-file has written",
    details: "Default: `EXCLUSIVE_LOG_FILE`.",
  },
  ...DIR,
});

export default defineCommand({
  meta: {
    name: "history",
    description: "show past runs, from the log file",
    examples: [
      ["history", "each lock's last run and last success"],
      ["history backup", "the last 20 runs"],
      ["history --prometheus", "metrics"],
    ],
    notes: [
      "Exit status: 0; 64 no log file named; 74 it cannot be read",
      "Environment: EXCLUSIVE_DIR, EXCLUSIVE_STORE, EXCLUSIVE_LOG_FILE",
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => history(rawArgs),
});

const LAST = 20;

async function history(rawArgs: string[]): Promise<number> {
  const { values, rest } = parseOptions(rawArgs, ARGS);
  if (rest.length > 1) throw new UsageError("one NAME at a time");
  const name = rest[0] === undefined ? undefined : recordedName(checkName(rest[0]));
  if (values.json && values.prometheus) throw new UsageError("--json cannot be combined with --prometheus");
  const last = values.last === undefined ? LAST : countOf(values.last);
  const file = logFileOf(values);
  if (file === undefined)
    throw new UsageError("missing log file: use --log-file FILE or EXCLUSIVE_LOG_FILE, here and for run");

  const histories = new Histories(last, name);
  const broken = readEvents(file, (event) => histories.add(event));
  if (broken > 0)
    printError(`skipped ${broken} broken ${broken === 1 ? "line" : "lines"} in ${printable(file)}`);
  const all = histories.all();
  const [one] = all;
  if (values.prometheus) write(metrics(all, await heldNow(all, values)));
  else if (values.json && name !== undefined)
    print(jsonLine((one ?? new LockHistory(name, undefined, last)).toJSON(true)));
  else if (values.json) print(jsonLine(all.map((each) => each.toJSON(false))));
  else if (one === undefined)
    printError(`no events${name === undefined ? "" : ` of '${printable(name)}'`} in ${printable(file)}`);
  else {
    const held = await heldNow(all.filter(isRunning), values);
    write(name === undefined ? overviewTable(all, held) : runTable(one, held));
    if (name !== undefined) print(describeHistory(one));
  }
  return EXIT.OK;
}

/** Has the last run no end in the file? */
const isRunning = ({ lastRun }: LockHistory): boolean => lastRun !== undefined && lastRun.ended === undefined;

/** Which locks are held now. A store that does not answer costs only this. */
async function heldNow(all: readonly LockHistory[], where: LocationValues): Promise<HeldNow> {
  const held = new Map<string, boolean>();
  if (all.length === 0) return held;
  const store = openStoreOf(where);
  for (const { name } of all) {
    try {
      const { state } = await statusWithSlots(store, name);
      if (state !== "unknown") held.set(name, state === "held");
    } catch (error) {
      if (!(error instanceof StoreError || error instanceof LockFileError)) throw error;
      printError(`cannot tell whether '${printable(name)}' is held now: ${printable(error.message)}`);
      if (error instanceof StoreError) break;
    }
  }
  return held;
}

function countOf(text: string): number {
  if (/^\d{1,6}$/.test(text)) return Number(text);
  throw new UsageError(`--last takes a whole number, not '${printable(text)}'`);
}
