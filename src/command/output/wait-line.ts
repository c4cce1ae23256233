/**
 * The progress of a wait: one live line on a terminal. Elsewhere nothing, as a wait that succeeds is no news for cron's
 * mail; with `--verbose` or as JSON a line at the start and then a rare reminder.
 */
import { type Duration, humanDuration, milliseconds } from "../../duration.ts";
import { printable } from "../../errors.ts";
import type { Holder } from "../../holder.ts";
import { beforeDeath } from "../../os/before-death.ts";
import { write } from "../../os/files.ts";
import { isTerminal, windowSize } from "../../os/terminal.ts";
import { describeHolder } from "./describe-holder.ts";
import type { EventLog } from "./event-log.ts";

/** A wait that ends sooner is not shown. */
const PATIENCE_MS = 150;
const REDRAW_MS = 1000;
const REMIND_MS = 10 * 60_000;
/** The holder is looked up at every fifth drawing: that costs more than drawing. */
const LOOKUP_EVERY = 5;

const ERASE = "\r\x1b[K";

/** Shows the wait until it is disposed of. */
export function showWaiting(
  lock: { name: string; holder(): Promise<Holder | null> },
  timeout: Duration | undefined,
  log: EventLog,
): Disposable {
  const { quiet, verbose, json } = log.verbosity;
  const live = !json && !quiet && isTerminal(2);
  if (!log.records && (quiet || !(live || json || verbose))) return { [Symbol.dispose]() {} };
  const begun = performance.now();
  const deadline = timeout === undefined ? undefined : begun + milliseconds(timeout);
  /** Null while the lock is free; undefined where the holder is not known. */
  let holder: Holder | null | undefined;
  let timer: Timer | undefined;
  let restore: Disposable | undefined;

  const line = () => {
    const waited = humanDuration(performance.now() - begun);
    const limit = deadline === undefined ? "" : ` of ${humanDuration(deadline - begun)}`;
    const held = holder === null ? "just released" : `held${describeHolder(holder)}`;
    // The variable-length part comes last, because the line is cut to the terminal's width.
    return `waiting for '${printable(lock.name)}' (${waited}${limit}), ${held}`;
  };
  const show = () => {
    const details = { waitSeconds: log.elapsed, holder };
    if (!live && (json || verbose)) return log.tell("waiting", details, line);
    if (restore === undefined) log.record("waiting", details);
    if (!live) return;
    restore ??= beforeDeath(() => write(2, ERASE));
    // A line that wraps could not be erased.
    write(2, ERASE + Bun.sliceAnsi(`exclusive: ${line()}`, 0, windowSize(2).columns - 1));
  };
  let shown = 0;
  const tick = async () => {
    // A store that does not answer is for the wait itself to report, not for this line.
    if (!live || shown++ % LOOKUP_EVERY === 0) holder = await lock.holder().catch(() => holder);
    if (timer === undefined) return; // disposed of during the lookup
    show();
    timer = setTimeout(tick, live ? REDRAW_MS : REMIND_MS);
  };
  timer = setTimeout(tick, PATIENCE_MS);

  return {
    [Symbol.dispose]() {
      clearTimeout(timer);
      timer = undefined;
      restore?.[Symbol.dispose]();
      if (restore) write(2, ERASE);
    },
  };
}
