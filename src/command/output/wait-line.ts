/** What a waiting command shows: in a terminal one live line, elsewhere a line at the start and then rarely. */
import { releaseAll } from "../../acquire.ts";
import { type Duration, milliseconds } from "../../duration.ts";
import { printable } from "../../errors.ts";
import type { Holder } from "../../holder.ts";
import { write } from "../../os/files.ts";
import { isIgnored } from "../../os/signal-sets.ts";
import { dieBySignal, SIG } from "../../os/signals.ts";
import { byWhom } from "./describe-holder.ts";
import { type Log, spoken } from "./print.ts";

/** A wait that is over sooner is not worth a line. */
const PATIENCE_MS = 150;
const REDRAW_MS = 1000;
const REMIND_MS = 10 * 60_000;
/** Asking who holds the lock costs more than drawing a line. */
const LOOK_EVERY = 5;

const ERASE = "\r\x1b[K";

const ENDING = { SIGINT: SIG.INT, SIGTERM: SIG.TERM, SIGHUP: SIG.HUP } as const;

/** Shows that we wait, until it is disposed of. */
export function showWaiting(
  lock: { name: string; holder(): Promise<Holder | null> },
  timeout: Duration | undefined,
  log: Log,
): Disposable {
  if (log.talk.quiet) return { [Symbol.dispose]() {} };
  const begun = Date.now();
  const deadline = timeout === undefined ? undefined : begun + milliseconds(timeout);
  const live = !log.talk.json && process.stderr.isTTY;
  let holder: Holder | null = null;
  let timer: Timer | undefined;
  let restore: (() => void) | undefined;

  const line = () => {
    const left = deadline === undefined ? "" : `, giving up in ${spoken(deadline - Date.now() + 999)}`;
    const held = holder ? `held${byWhom(holder)}` : "just released";
    // What is of any length comes last: a terminal shows what fits.
    return `waiting for '${printable(lock.name)}', waited ${spoken(Date.now() - begun)}${left}; ${held}`;
  };
  const show = () => {
    if (!live) return log.tell("waiting", { wait: log.elapsed, holder }, line);
    restore ??= eraseBeforeDeath();
    // Asked each time: `columns` stays what it was when the window changes. A line that wraps could not be erased.
    const [columns] = process.stderr.getWindowSize();
    write(2, ERASE + Bun.sliceAnsi(`exclusive: ${line()}`, 0, (columns || 80) - 1));
  };
  let shown = 0;
  const tick = async () => {
    // That a store does not answer now is for the wait itself to judge, not for the line that tells of it.
    if (!live || shown++ % LOOK_EVERY === 0) holder = await lock.holder().catch(() => holder);
    if (timer === undefined) return; // disposed of while we looked
    show();
    timer = setTimeout(tick, live ? REDRAW_MS : REMIND_MS);
  };
  timer = setTimeout(tick, PATIENCE_MS);

  return {
    [Symbol.dispose]() {
      clearTimeout(timer);
      timer = undefined;
      restore?.();
      if (restore) write(2, ERASE);
    },
  };
}

/**
 * A signal that ends us leaves a clean line behind, and no file of the next in line. One that we were started ignoring
 * stays ignored, for the command too.
 */
function eraseBeforeDeath(): () => void {
  const handlers = (Object.keys(ENDING) as (keyof typeof ENDING)[])
    .filter((signal) => !isIgnored(signal))
    .map((signal) => {
      const die = () => {
        write(2, ERASE);
        releaseAll();
        dieBySignal(ENDING[signal]);
      };
      process.on(signal, die);
      return () => process.off(signal, die);
    });
  return () => {
    for (const remove of handlers) remove();
  };
}
