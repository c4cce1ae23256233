/** `exclusive list`: every lock, and who holds it. */

import { dieBySignal, SIG } from "../os/signals.ts";
import type { LockStatus, Store } from "../store/store.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { DIR, storeOf } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";
import { Describer } from "./output/describer.ts";
import { table } from "./output/lock-table.ts";
import { complain, emit, jsonLine, print } from "./output/print.ts";

export const OPTIONS = {
  json: { help: "print one JSON array; with --watch, one on a line for each change" },
  watch: { short: "w", help: "go on, as a live table, until Ctrl-C" },
  ...DIR,
} as const;

/** How often a live table looks again, in milliseconds. */
const WATCH_MS = 1000;

export async function list(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, OPTIONS, true);
  if (rest.length > 0) throw new UsageError("list takes no NAME: ask exclusive status NAME");
  const store = storeOf(values);
  const terminal = process.stdout.isTTY && process.env.TERM !== "dumb";
  if (values.watch) return watch(store, values.json === true, terminal);
  const locks = await look(store);
  if (values.json) print(jsonLine(locks));
  else if (locks.length > 0) emit(table(locks, { color: terminal }));
  else if (terminal) complain("there are no locks");
  return EXIT.OK;
}

async function look(store: Store): Promise<LockStatus[]> {
  const describer = new Describer();
  return (await store.list()).map((lock) => describer.describe(lock));
}

/** Outside a terminal, or as JSON: all of it again, whenever something has changed. */
async function watch(store: Store, json: boolean, terminal: boolean): Promise<never> {
  if (terminal && !json) return watchLive(store);
  for (let before: string | undefined; ; await Bun.sleep(WATCH_MS)) {
    const locks = await look(store);
    const now = jsonLine(locks);
    if (now === before) continue;
    before = now;
    if (json) print(now);
    else emit(`# ${new Date().toISOString()}\n${table(locks)}`);
  }
}

const HIDE_CURSOR = "\x1b[?25l";
const SHOW_CURSOR = "\x1b[?25h";
const ERASE_LINE = "\x1b[K";
const ERASE_BELOW = "\x1b[J";

/** In a terminal: redrawn in place, never longer than the screen, for there is no way back over its upper edge. */
async function watchLive(store: Store): Promise<never> {
  let drawn = 0;
  /** The table stays as it was last, and the cursor is below it. */
  const leave = () => {
    emit(`${SHOW_CURSOR}\r\n`);
    drawn = 0;
  };
  for (const signal of ["INT", "TERM", "HUP", "QUIT"] as const) {
    process.on(`SIG${signal}`, () => {
      leave();
      dieBySignal(SIG[signal]); // as anybody else would
    });
  }
  process.on("SIGTSTP", () => {
    leave();
    process.kill(process.pid, "SIGSTOP");
  });
  for (;;) {
    const locks = await look(store);
    const [columns, rows] = process.stdout.getWindowSize();
    const lines = table(locks, { color: true, width: columns }).split("\n").slice(0, -1);
    const room = Math.max(2, rows - 1);
    if (lines.length > room) {
      const left = lines.length - room + 1;
      lines.splice(room - 1, left, `… and ${left} more`);
    }
    const up = drawn > 1 ? `\x1b[${drawn - 1}A` : "";
    emit(`${HIDE_CURSOR}${up}\r${lines.map((line) => line + ERASE_LINE).join("\r\n")}${ERASE_BELOW}`);
    drawn = lines.length;
    await Promise.race([Bun.sleep(WATCH_MS), resized()]);
  }
}

/** The next time that the terminal has another size. */
function resized(): Promise<void> {
  process.stdout.removeAllListeners("resize");
  return new Promise((resolve) => process.stdout.once("resize", resolve));
}
