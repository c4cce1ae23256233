/** Locks as a table. */
import { humanDuration } from "../../duration.ts";
import { printable } from "../../errors.ts";
import { type Holder, heldFor, workingPid } from "../../holder.ts";
import type { LockStatus } from "../../store/store.ts";
import { cut, shortened, untilInWords } from "./describe-holder.ts";

const COLUMNS = ["NAME", "STATE", "PID", "USER", "HELD FOR", "WAITING", "LABEL", "COMMAND"] as const;

/** Width limit of every cell but the last, where the table has a width. */
const CELL_MAX = 40;

const COLOR = {
  held: "\x1b[33m",
  shared: "\x1b[36m",
  free: "\x1b[32m",
  unknown: "\x1b[31m",
  head: "\x1b[1m",
  overdue: "\x1b[31m",
};
const PLAIN = "\x1b[0m";

export interface TableOptions {
  color?: boolean;
  /** No line is wider than this many columns: see `fit`. */
  width?: number | undefined;
}

/** Formats a line of headings and one line a lock; each ends with a newline. */
export function lockTable(locks: readonly LockStatus[], options: TableOptions = {}): string {
  const { color = false, width } = options;
  const rows = locks.map((lock) => cells(lock, width));
  const widths = COLUMNS.map((heading, i) =>
    rows.reduce((most, row) => Math.max(most, Bun.stringWidth(row[i]!)), heading.length),
  );
  for (const [i] of COLUMNS.entries()) if (i > 2 && rows.every((row) => row[i] === "")) widths[i] = 0;
  fit(widths, width);
  return [COLUMNS as readonly string[], ...rows]
    .map((row, n) => {
      const shown = row.map((cell, i) => {
        const text = cut(cell, widths[i]);
        const colored = color && n > 0 ? painted(text, i, row) : text;
        return colored + " ".repeat(widths[i]! - Bun.stringWidth(text));
      });
      const cells = shown.filter((_, i) => widths[i]! > 0);
      const line = cut(cells.join("  ").trimEnd(), width);
      return color && n === 0 ? `${COLOR.head}${line}${PLAIN}\n` : `${line}\n`;
    })
    .join("");
}

/** Columns that give way, the first one first: to their least width, 0 for none at all. STATE and the pid never do. */
const GIVING_WAY: readonly [column: (typeof COLUMNS)[number], least: number][] = [
  ["COMMAND", 24],
  ["LABEL", 0],
  ["USER", 0],
  ["WAITING", 0],
  ["HELD FOR", 0],
  ["COMMAND", 12],
  ["NAME", 12],
  ["COMMAND", 0],
  ["PID", 12], // its host
  ["NAME", 4],
];

/** Makes columns narrower until a line fits: a column that is cut to a few letters is of no use, so most go as a whole. */
function fit(widths: number[], width = Number.POSITIVE_INFINITY): void {
  const command = COLUMNS.indexOf("COMMAND");
  const whole = widths[command]!;
  const excess = () => widths.reduce((sum, column) => (column > 0 ? sum + column + 2 : sum), -2) - width;
  for (const [column, least] of GIVING_WAY) {
    if (excess() <= 0) break;
    const i = COLUMNS.indexOf(column);
    if (widths[i]! > least) widths[i] = least === 0 ? 0 : Math.max(least, widths[i]! - excess());
  }
  // What a column that went has left over.
  if (widths[command]! > 0) widths[command] = Math.min(whole, widths[command]! - excess());
}

/** The state in its color. */
function painted(text: string, column: number, row: readonly string[]): string {
  const isState = column === COLUMNS.indexOf("STATE");
  const color = isState ? COLOR[row[column] as keyof typeof COLOR] : undefined;
  return color === undefined ? text : `${color}${text}${PLAIN}`;
}

function cells({ name, state, holder, others = [], waiters, overdue }: LockStatus, width?: number): string[] {
  const most = width === undefined ? width : CELL_MAX;
  const held = holder && heldFor(holder);
  return [
    cut(printable(name), most),
    overdue ? "overdue" : state === "held" && holder?.mode === "shared" ? "shared" : state,
    pidCell(holder) + (others.length > 0 ? ` +${others.length}` : ""),
    cut(printable(holder?.user ?? ""), most),
    held === undefined ? "" : humanDuration(held),
    waiters ? String(waiters) : "",
    cut(printable(holder?.label ?? ""), most),
    shortened(holder?.until === undefined ? (holder?.commandLine ?? "") : untilInWords(holder.until)),
  ];
}

/** The holder's pid, with its host where the process is not visible from this host. */
function pidCell(holder: Holder | undefined): string {
  if (holder?.pid === undefined) return "";
  const { pid, alive, host } = holder;
  if (alive === undefined && host !== undefined) return cut(`${pid}@${printable(host)}`, CELL_MAX);
  return String(workingPid(holder));
}
