/**
 * The progress of a wait: one live line on a terminal. Elsewhere nothing, as a wait that succeeds is no news for cron's
 * mail; with `--verbose` or as JSON a line at the start and then a rare reminder.
 */
import { type Duration, humanDuration, limitInWords, milliseconds } from "../../duration.ts";
import { printable } from "../../errors.ts";
import type { Holder } from "../../holder.ts";
import { beforeDeath } from "../../os/before-death.ts";
import { write } from "../../os/files.ts";
import { isCapable, isTerminal, windowSize } from "../../os/terminal.ts";
import { cut, describeHolder } from "./describe-holder.ts";
import type { EventLog } from "./event-log.ts";

/** A wait that ends sooner is not shown. */
const PATIENCE_MS = 150;
const REDRAW_MS = 1000;
const REMIND_MS = 10 * 60_000;
/** The holder is looked up at every fifth drawing: that costs more than drawing. */
const LOOKUP_EVERY = 5;

const ERASE = "\r\x1b[K";
/** A name is not cut to fewer letters. */
const NAME_MIN = 6;

/** Shows the wait until it is disposed of. */
export function showWaiting(
  lock: { name: string; holder(): Promise<Holder | null> },
  timeout: Duration | undefined,
  log: EventLog,
): Disposable {
  const { quiet, verbose, json } = log.verbosity;
  const terminal = !json && !quiet && isTerminal(2);
  const live = terminal && isCapable(2);
  if (!log.records && (quiet || !(terminal || json || verbose))) return { [Symbol.dispose]() {} };
  const begun = performance.now();
  const deadline = timeout === undefined ? undefined : begun + milliseconds(timeout);
  /** Null while the lock is free; undefined where the holder is not known. */
  let holder: Holder | null | undefined;
  let timer: Timer | undefined;
  let restore: Disposable | undefined;

  const line = () => {
    const limit = deadline === undefined ? "" : ` of ${limitInWords(deadline - begun)}`;
    const times = `${humanDuration(performance.now() - begun)}${limit}`;
    const held = holder === null ? "just released" : `held${describeHolder(holder)}`;
    const width = terminal ? windowSize(2).columns - 1 : Number.POSITIVE_INFINITY;
    return fitted({ name: printable(lock.name), times, held }, width, live);
  };
  const show = () => {
    const details = { waitSeconds: log.elapsed, holder };
    if (!live && (json || verbose || terminal)) return log.tell("waiting", details, line);
    if (restore === undefined) log.record("waiting", details);
    if (!live) return;
    restore ??= beforeDeath(() => write(2, ERASE));
    write(2, ERASE + line());
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

type Form = (name: string, times: string, held: string) => string;

/** The forms of the line, the longest first. */
const FORMS: readonly Form[] = [
  (name, times, held) => `exclusive: waiting for '${name}' (${times}), ${held}`,
  (name, times, held) => `waiting for '${name}' (${times}), ${held}`,
  (name, times, held) => `'${name}' (${times}), ${held}`,
  (_name, _times, held) => held,
];

/**
 * The line in so many columns: one that wraps could not be erased. What follows the holder's pid is cut. Where the pid would
 * not fit, the name is cut, to a few letters at least; then the next form is tried.
 * @param live with the program's own name
 */
function fitted(
  { name, times, held }: Record<"name" | "times" | "held", string>,
  width: number,
  live: boolean,
): string {
  const [holder = held] = /^held by pid \d+/.exec(held) ?? [];
  const length = Bun.stringWidth(name);
  const least = Math.min(length, NAME_MIN);
  for (const form of FORMS.slice(live ? 0 : 1)) {
    const room = width - Bun.stringWidth(form("", times, holder));
    if (room < least && form !== FORMS.at(-1)) continue;
    return cut(form(cut(name, room), times, held), width);
  }
  return "";
}
