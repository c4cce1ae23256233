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
  head: "\x1b[1m",
};
const PLAIN = "\x1b[0m";

export interface TableOptions {
  /** Colours, unless `NO_COLOR` (no-color.org) is set. */
  color?: boolean;
  /** Cut lines to this many columns. */
  width?: number;
}

/** Formats a line of headings and one line a lock; each ends with a newline. */
export function lockTable(locks: readonly LockStatus[], { color = false, width }: TableOptions = {}): string {
  const rows = locks.map((lock) => cells(lock));
  const used = COLUMNS.map((_, i) => i < 3 || rows.some((row) => row[i] !== ""));
  const widths = COLUMNS.map((heading, i) =>
    rows.reduce((most, row) => Math.max(most, Bun.stringWidth(row[i]!)), heading.length),
  );
  const colors = color && !process.env.NO_COLOR;
  return [COLUMNS as readonly string[], ...rows]
    .map((row, n) => {
      const padded = row.map((cell, i) => cell + " ".repeat(widths[i]! - Bun.stringWidth(cell)));
      const line = cut(
        padded
          .filter((_, i) => used[i])
          .join("  ")
          .trimEnd(),
        width,
      );
      if (!colors) return `${line}\n`;
      if (n === 0) return `${COLOR.head}${line}${PLAIN}\n`;
      return `${painted(line, padded[0]!.length + 2, row[1] as keyof typeof COLOR)}\n`;
    })
    .join("");
}

function painted(line: string, at: number, state: keyof typeof COLOR): string {
  const end = at + state.length;
  return `${line.slice(0, at)}${COLOR[state]}${line.slice(at, end)}${PLAIN}${line.slice(end)}`;
}

function cells({ name, state, holder, others = [], waiters }: LockStatus): string[] {
  const held = holder && heldFor(holder);
  return [
    cut(printable(name), CELL_MAX),
    state === "held" && holder?.mode === "shared" ? "shared" : state,
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
  return Bun.stringWidth(text) <= width ? text : `${Bun.sliceAnsi(text, 0, width - 1)}…`;
}
