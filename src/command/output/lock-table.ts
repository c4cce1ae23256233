/** Locks as a table. */
import { humanDuration } from "../../duration.ts";
import { printable } from "../../errors.ts";
import { type Holder, heldFor } from "../../holder.ts";
import type { LockStatus } from "../../store/store.ts";
import { shortened, untilInWords } from "./describe-holder.ts";

const COLUMNS = ["NAME", "STATE", "PID", "USER", "HELD FOR", "WAITING", "LABEL", "COMMAND"] as const;

/** Width limit of every cell but the last. */
const CELL_MAX = 40;

const COLOR = {
  held: "\x1b[33m",
  shared: "\x1b[36m",
  free: "\x1b[32m",
  unknown: "\x1b[31m",
  overdue: "\x1b[31m",
  head: "\x1b[1m",
};
const PLAIN = "\x1b[0m";

export interface TableOptions {
  color?: boolean;
  /** No line is wider than this many columns: see `fit`. */
  width?: number;
}

/** Formats a line of headings and one line a lock; each ends with a newline. */
export function lockTable(locks: readonly LockStatus[], { color = false, width }: TableOptions = {}): string {
  const rows = locks.map((lock) => cells(lock));
  const widths = COLUMNS.map((heading, i) =>
    rows.reduce((most, row) => Math.max(most, Bun.stringWidth(row[i]!)), heading.length),
  );
  for (const [i] of COLUMNS.entries()) if (i > 2 && rows.every((row) => row[i] === "")) widths[i] = 0;
  fit(widths, width);
  return [COLUMNS as readonly string[], ...rows]
    .map((row, n) => {
      const padded = row.map((cell, i) => {
        const shown = cut(cell, widths[i]);
        return shown + " ".repeat(widths[i]! - Bun.stringWidth(shown));
      });
      const line = cut(
        padded
          .filter((_, i) => widths[i]! > 0)
          .join("  ")
          .trimEnd(),
        width,
      );
      if (!color) return `${line}\n`;
      if (n === 0) return `${COLOR.head}${line}${PLAIN}\n`;
      return `${painted(line, padded[0]!.length + 2, row[1] as keyof typeof COLOR)}\n`;
    })
    .join("");
}

/** Columns that give way, the first one first: to their least width, 0 for none at all. STATE and PID never do. */
const GIVING_WAY: readonly [column: (typeof COLUMNS)[number], least: number][] = [
  ["COMMAND", 24],
  ["LABEL", 0],
  ["USER", 0],
  ["WAITING", 0],
  ["HELD FOR", 0],
  ["COMMAND", 12],
  ["NAME", 12],
  ["COMMAND", 0],
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

function painted(line: string, at: number, state: keyof typeof COLOR): string {
  const end = at + state.length;
  return `${line.slice(0, at)}${COLOR[state]}${line.slice(at, end)}${PLAIN}${line.slice(end)}`;
}

function cells({ name, state, holder, others = [], waiters, overdue }: LockStatus): string[] {
  const held = holder && heldFor(holder);
  return [
    cut(printable(name), CELL_MAX),
    overdue ? "overdue" : state === "held" && holder?.mode === "shared" ? "shared" : state,
    pidCell(holder) + (others.length > 0 ? ` +${others.length}` : ""),
    cut(printable(holder?.user ?? ""), CELL_MAX),
    held === undefined ? "" : humanDuration(held),
    waiters ? String(waiters) : "",
    cut(printable(holder?.label ?? ""), CELL_MAX),
    shortened(holder?.until === undefined ? (holder?.commandLine ?? "") : untilInWords(holder.until)),
  ];
}

/** The holder's pid, with its host where the process is not visible from this host. */
function pidCell(holder: Holder | undefined): string {
  if (holder?.pid === undefined) return "";
  const { pid, alive, host, commandPid } = holder;
  if (alive === undefined && host !== undefined) return cut(`${pid}@${printable(host)}`, CELL_MAX);
  return String(alive === false ? (commandPid ?? pid) : pid);
}

/** Cuts text to this many columns, with an ellipsis. */
function cut(text: string, width = Number.POSITIVE_INFINITY): string {
  if (width === 0) return "";
  return Bun.stringWidth(text) <= width ? text : `${Bun.sliceAnsi(text, 0, width - 1)}…`;
}
