/** `exclusive stop`: stop the process that holds a lock. */

import { constants } from "node:os";
import { defineCommand } from "citty";
import { milliseconds } from "../duration.ts";
import { printable } from "../errors.ts";
import { realTimeSignal } from "../os/signal-name.ts";
import { SIG } from "../os/signals.ts";
import { statusWithSlots } from "../store/look-up.ts";
import type { LockStatus } from "../store/store.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { LOCATION, NAME, openStoreOf, requireName } from "./cli/lock-options.ts";
import { LOG_FILE, logFileOf } from "./cli/log-options.ts";
import { parseOptions } from "./cli/options.ts";
import { suggestion } from "./cli/suggest.ts";
import { describeHeld } from "./output/describe-holder.ts";
import { Describer } from "./output/describe-processes.ts";
import { EventLog } from "./output/event-log.ts";
import { jsonLine, print, printError } from "./output/print.ts";
import { GRACE_MS, type Stopped, stopHolders } from "./run/stop-holders.ts";
import { inTurn } from "./run/stop-turn.ts";

const ARGS = defineArgs({
  ...NAME,
  signal: {
    type: "string",
    alias: "s",
    valueHint: "SIGNAL",
    description: "send this first, instead of TERM",
    details: "A name or a number, `RTMIN+3` included.",
  },
  grace: {
    type: "string",
    alias: "g",
    valueHint: "DURATION",
    description: "send SIGKILL after DURATION (default 10s)",
  },
  quiet: { type: "boolean", alias: "q", description: "no messages except errors" },
  json: {
    type: "boolean",
    description: "print one JSON object: the stopped processes, and the lock's status",
  },
  ...LOG_FILE,
  ...LOCATION,
});

export default defineCommand({
  meta: {
    name: "stop",
    description: "end the process that holds a lock",
    examples: [
      ["stop worker", "SIGTERM; SIGKILL after 10s"],
      ["stop -s INT -g 1m worker", "SIGINT; SIGKILL after 1m"],
    ],
    notes: [
      "Exit status: 0 stopped or free, 75 still held, 77 not permitted",
      "Environment: EXCLUSIVE_DIR, EXCLUSIVE_STORE, EXCLUSIVE_LOG_FILE",
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => stop(rawArgs),
});

export async function stop(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, ARGS);
  const name = requireName(rest);
  const store = openStoreOf(values);
  const signal = values.signal === undefined ? SIG.TERM : signalNumber(values.signal);
  const grace = values.grace === undefined ? GRACE_MS : milliseconds(values.grace);
  const log = new EventLog({ quiet: values.quiet }, name, { logFile: logFileOf(values) });

  // SIGKILL does not wait for its turn: a stop with a long grace may have it. The wait counts as grace.
  const wait = signal === SIG.KILL ? 0 : grace;
  const result = await inTurn(store, name, wait, (turn) =>
    stopHolders(store, name, { signal, grace, late: turn === "late" }),
  );
  const now = await statusWithSlots(store, name);
  const { stopped, left, strangers, unseen } = result;
  if (stopped.length + left.length > 0) log.record("stopped", { stopped, left });
  if (values.json) print(jsonLine({ ...new Describer().describe(now), stopped, left, strangers }));
  else if (!values.quiet) printError(inWords(result, now));
  return left.length + strangers.length > 0 || unseen ? EXIT.TEMPORARY_FAILURE : EXIT.OK;
}

function inWords({ stopped, left, strangers, unseen }: Stopped, now: LockStatus): string {
  const state =
    now.state === "held" ? describeHeld(now.name, now.holder) : `'${printable(now.name)}' is free`;
  if (left.length === 0 && (strangers.length > 0 || unseen)) {
    const who = unseen ? "a hidden process" : `pid ${strangers.join(", ")}`;
    return `stopped pid ${stopped.join(", ")}, but ${who} still has the lock's open file: it is not part of that command, and was not signalled`;
  }
  if (left.length > 0) return `pid ${left.join(", ")} still holds it after SIGKILL: ${state}`;
  return stopped.length > 0 ? `stopped pid ${stopped.join(", ")}: ${state}` : state;
}

/** The number of a signal, by its name or number. @throws {UsageError} when there is no such signal */
function signalNumber(text: string): number {
  const name = `SIG${text.toUpperCase().replace(/^SIG/, "")}`;
  const numbers: readonly number[] = Object.values(constants.signals);
  if (Object.hasOwn(constants.signals, name)) return constants.signals[name as NodeJS.Signals];
  if (/^\d+$/.test(text) && numbers.includes(Number(text))) return Number(text);
  const realTime = realTimeSignal(name.slice(3));
  if (realTime !== undefined) return realTime;
  const names = Object.keys(constants.signals).map((signal) => signal.slice(3));
  const meant = suggestion(name.slice(3), names) || ` (one of ${names.join(", ")}, or a number)`;
  throw new UsageError(`no such signal: '${printable(text)}'${meant}`);
}
