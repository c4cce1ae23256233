/** The options of `exclusive run` that say how long something may take, and their values. */
import { milliseconds } from "../../duration.ts";
import { defineArgs } from "../cli/define.ts";
import { UsageError } from "../cli/exit-status.ts";
import type { RunLimit } from "./max-runtime.ts";
import type { RunPlan } from "./run-plan.ts";

export const TIMES = defineArgs({
  "max-runtime": {
    type: "string",
    valueHint: "DURATION",
    description: "stop the command after DURATION (exit 124)",
    details: "It is stopped with all that it has started, as by `exclusive stop`.",
  },
  "kill-after": {
    type: "string",
    valueHint: "DURATION",
    description: "then SIGKILL after DURATION (default 10s)",
  },
  overdue: {
    type: "string",
    valueHint: "DURATION",
    description: "with skip, coalesce, latest: 75 if the holder runs longer",
    details:
      "A hung job is then no silence without end: it is said which process it is, and the exit status is 75.",
  },
  "hold-for": {
    type: "string",
    valueHint: "DURATION",
    description: "keep the lock at least DURATION after it was taken",
    details:
      "However soon the command ends; this program ends with it. A process that only sleeps keeps the lock: `list` shows it, `stop` ends it. A daemon that the command leaves keeps it longer, except with `--close`. With a store, the run's second process keeps it.",
  },
});

/** The default of `--kill-after`. */
const KILL_AFTER_MS = 10_000;

type Values = { [option in keyof typeof TIMES]?: string } & { exec?: true };
type Times = Pick<RunPlan, "limit" | "overdue" | "holdFor">;

/** @throws {UsageError} where they do not go together */
export function timesOf(values: Values, policy: RunPlan["policy"]): Times {
  const { overdue, "hold-for": holdFor } = values;
  const duration = (text: string | undefined) => (text === undefined ? undefined : milliseconds(text));
  if (holdFor !== undefined && values.exec)
    throw new UsageError(
      "--hold-for cannot be combined with --exec: no process would be left to start the keeper",
    );
  if (overdue !== undefined && !["skip", "coalesce", "latest"].includes(policy))
    throw new UsageError("--overdue needs --if-held skip, coalesce or latest");
  return { limit: limitOf(values), overdue: duration(overdue), holdFor: duration(holdFor) };
}

function limitOf({ "max-runtime": runtime, "kill-after": killAfter, exec }: Values): RunLimit | undefined {
  if (runtime === undefined && killAfter !== undefined)
    throw new UsageError("--kill-after needs --max-runtime");
  if (runtime === undefined) return undefined;
  if (exec)
    throw new UsageError("--max-runtime cannot be combined with --exec: no process would be left to stop it");
  const limit = milliseconds(runtime);
  if (limit === 0) throw new UsageError("--max-runtime takes a duration longer than 0, such as 2h");
  return {
    runtime: limit,
    killAfter: killAfter === undefined ? KILL_AFTER_MS : milliseconds(killAfter),
  };
}
