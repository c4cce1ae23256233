/** `exclusive list`: locks and their holders. */
import { defineCommand } from "citty";
import { milliseconds } from "../duration.ts";
import { printable } from "../errors.ts";
import { defaultDirectory } from "../name.ts";
import { beforeDeath } from "../os/before-death.ts";
import { Keys } from "../os/keys.ts";
import { isCapable, isTerminal, windowSize } from "../os/terminal.ts";
import type { LockStatus, Store } from "../store/store.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { DIR, type LocationValues, lockLocation, openStoreOf } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";
import { Describer } from "./output/describe-processes.ts";
import { lockTable } from "./output/lock-table.ts";
import { jsonLine, print, printError, write } from "./output/print.ts";
import { isOverdue } from "./run/overdue.ts";

const ARGS = defineArgs({
  all: {
    type: "boolean",
    alias: "a",
    description: "show free locks too, whose files are still there",
    details: "A killed holder, `--exec` and `--keep` leave a file; the next holder of that lock removes it.",
  },
  overdue: {
    type: "string",
    valueHint: "DURATION",
    description: "mark locks that are held for longer",
    details: "Default: the holder's own `run --overdue`.",
  },
  json: { type: "boolean", description: "print one JSON array; with --watch, one on a line for each change" },
  watch: {
    type: "boolean",
    alias: "w",
    description: "refresh until q or Ctrl-C",
    details:
      "A terminal shows a live table; elsewhere the whole list is printed again whenever something has changed.",
  },
  ...DIR,
});

export default defineCommand({
  meta: {
    name: "list",
    description: "list locks and their holders",
    examples: [
      ["list", "every lock of the directory"],
      ["list --watch", "a live table; q leaves it"],
      ["list --json | jq '.[].holder.pid'", "for programs"],
    ],
    notes: [
      "Exit status: 0, also when there are none",
      "Environment: EXCLUSIVE_DIR, EXCLUSIVE_STORE, NO_COLOR, CLICOLOR_FORCE",
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => list(rawArgs),
});

/** Refresh interval. */
const WATCH_MS = 1000;
/** How often a typed key is looked for. */
const KEY_MS = 100;

async function list(rawArgs: string[]): Promise<number> {
  const { values, rest } = parseOptions(rawArgs, ARGS);
  if (rest.length > 0) throw new UsageError("list takes no NAME (did you mean exclusive status NAME?)");
  const overdue = values.overdue === undefined ? undefined : milliseconds(values.overdue);
  const store = openStoreOf(values);
  const look = () => describedLocks(store, values.all === true, overdue);
  const table = (locks: LockStatus[]) =>
    lockTable(locks, { color: isColored(), width: isTerminal(1) ? windowSize(1).columns : undefined });
  const none = `no locks in ${place(values)}`;
  if (values.watch && isCapable(1) && !values.json) return watchLive(look, table, none);
  if (values.watch) return watch(look, values.json ? undefined : table);
  const locks = await look();
  if (values.json) print(jsonLine(locks));
  else if (locks.length > 0) write(table(locks));
  else if (isTerminal(1)) printError(none);
  return EXIT.OK;
}

/** Colors for a terminal that has them. `NO_COLOR` (no-color.org) and `CLICOLOR_FORCE` (bixense.com/clicolors) decide first. */
function isColored(): boolean {
  const { NO_COLOR, CLICOLOR_FORCE } = process.env;
  if (NO_COLOR) return false;
  return isCapable(1) || (!!CLICOLOR_FORCE && CLICOLOR_FORCE !== "0");
}

/** The directory of the locks; a store by its URL could show a password. */
function place(values: LocationValues): string {
  const where = lockLocation(values);
  return "url" in where ? "the store" : printable(where.dir ?? defaultDirectory().path);
}

type Look = () => Promise<LockStatus[]>;

type Table = (locks: LockStatus[]) => string;

/**
 * The locks by name, numbers in it by their value.
 * @param overdue marks the locks that are held longer than this many milliseconds; undefined: by what their holders say
 */
async function describedLocks(store: Store, all: boolean, overdue?: number): Promise<LockStatus[]> {
  const describer = new Describer();
  const locks = (await store.list()).filter(({ state }) => all || state !== "free");
  const { compare } = new Intl.Collator("en", { numeric: true });
  return locks
    .sort((a, b) => compare(a.name, b.name))
    .map((lock) => {
      const own = lock.holder?.overdueAfter;
      const late = isOverdue(lock.holder, overdue ?? (own && own * 1000));
      return { ...describer.describe(lock), ...(late && { overdue: true }) };
    });
}

/** Prints the whole list again whenever something has changed, as JSON where there is no table. */
async function watch(look: Look, table: Table | undefined): Promise<never> {
  for (let before: string | undefined; ; await Bun.sleep(WATCH_MS)) {
    const locks = await look();
    const now = jsonLine(locks);
    if (now === before) continue;
    before = now;
    if (table === undefined) print(now);
    else write(`# ${new Date().toISOString()}\n${table(locks)}`);
  }
}

const HIDE_CURSOR = "\x1b[?25l";
const SHOW_CURSOR = "\x1b[?25h";
const ERASE_LINE = "\x1b[K";
const ERASE_BELOW = "\x1b[J";

/** Redraws the table in place. It is never longer than the screen: the cursor cannot go above the upper edge. */
async function watchLive(look: Look, table: Table, none: string): Promise<number> {
  using keys = new Keys();
  let drawn = 0;
  /** Leaves the last table on the screen, with the cursor below it. */
  const leave = () => {
    keys.restore();
    write(`${SHOW_CURSOR}\r\n`);
    drawn = 0;
  };
  using _terminal = beforeDeath(leave);
  process.on("SIGTSTP", () => {
    leave();
    process.kill(process.pid, "SIGSTOP");
  });
  do {
    const locks = await look();
    const { columns, rows } = windowSize(1);
    const text = locks.length > 0 ? table(locks) : `${Bun.sliceAnsi(none, 0, columns)}\n`;
    const lines = text.split("\n").slice(0, -1);
    const room = Math.max(2, rows - 1);
    if (lines.length > room) {
      const left = lines.length - room + 1;
      lines.splice(room - 1, left, `… and ${left} more`);
    }
    const up = drawn > 1 ? `\x1b[${drawn - 1}A` : "";
    write(`${HIDE_CURSOR}${up}\r${lines.map((line) => line + ERASE_LINE).join("\r\n")}${ERASE_BELOW}`);
    drawn = lines.length;
  } while (!(await isLeft(keys)));
  leave();
  return EXIT.OK;
}

/** Sleeps until the next refresh, or until the window's size changes. @returns true when `q` was typed */
async function isLeft(keys: Keys): Promise<boolean> {
  let resized = false;
  process.removeAllListeners("SIGWINCH");
  process.once("SIGWINCH", () => {
    resized = true;
  });
  for (let slept = 0; slept < WATCH_MS && !resized; slept += KEY_MS) {
    if (/q/i.test(keys.take())) return true;
    await Bun.sleep(KEY_MS);
  }
  return false;
}
