/** `exclusive stop`: stop the process that holds a lock. */
import { constants } from "node:os";
import { milliseconds } from "../duration.ts";
import { printable } from "../errors.ts";
import { SIG } from "../os/signals.ts";
import type { LockStatus } from "../store/store.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { lookUp, oneName, PLACE, storeOf } from "./cli/lock-options.ts";
import { nearest, parseOptions } from "./cli/options.ts";
import { heldBy } from "./output/describe-holder.ts";
import { Describer } from "./output/describer.ts";
import { jsonLine, Log, print } from "./output/print.ts";
import { GRACE_MS, stopHolders } from "./run/stop-holders.ts";

export const OPTIONS = {
  signal: { short: "s", value: "SIGNAL", help: "send this first, instead of TERM" },
  grace: { short: "g", value: "DURATION", help: "SIGKILL to those that hold it still after so long (10s)" },
  quiet: { short: "q", help: "say nothing" },
  json: { help: "print one JSON object: what was stopped, and what the lock is now" },
  ...PLACE,
} as const;

export async function stop(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, OPTIONS, true);
  const name = oneName(rest);
  const store = storeOf(values);
  const signal = values.signal === undefined ? SIG.TERM : signalNumber(values.signal);
  const grace = values.grace === undefined ? GRACE_MS : milliseconds(values.grace);
  const log = new Log({ quiet: values.quiet }, name);

  const { stopped, left } = await stopHolders(store, name, { signal, grace });
  const now = await lookUp(store, name);
  if (values.json) print(jsonLine({ ...new Describer().describe(now), stopped, left }));
  else log.tell("stopped", {}, () => inWords(stopped, left, now));
  return left.length > 0 ? EXIT.TEMPORARY_FAILURE : EXIT.OK;
}

function inWords(stopped: number[], left: number[], now: LockStatus): string {
  const state = now.state === "held" ? heldBy(now.name, now.holder) : `'${printable(now.name)}' is free`;
  if (left.length > 0) return `pid ${left.join(", ")} holds it even after SIGKILL: ${state}`;
  return stopped.length > 0 ? `stopped pid ${stopped.join(", ")}: ${state}` : state;
}

/** The number of a signal, by its name or number. @throws {UsageError} when there is no such signal */
function signalNumber(text: string): number {
  const names = Object.keys(constants.signals);
  const name = `SIG${text.toUpperCase().replace(/^SIG/, "")}`;
  const numbers: readonly number[] = Object.values(constants.signals);
  if (Object.hasOwn(constants.signals, name)) return constants.signals[name as NodeJS.Signals];
  if (/^\d+$/.test(text) && numbers.includes(Number(text))) return Number(text);
  const meant = nearest(name, names)?.slice(3);
  throw new UsageError(`no such signal: '${printable(text)}'${meant ? ` (did you mean ${meant}?)` : ""}`);
}
