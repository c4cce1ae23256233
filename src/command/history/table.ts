/** Histories as tables and sentences. */
import { humanDuration } from "../../duration.ts";
import { printable } from "../../errors.ts";
import { shortened } from "../output/describe-holder.ts";
import type { LockHistory, Run } from "./runs.ts";

/** Whether each lock is held now, by name; a lock that is missing is not known. */
export type HeldNow = ReadonlyMap<string, boolean>;

/** One line a lock. */
export function overviewTable(all: readonly LockHistory[], held: HeldNow): string {
  const rows = all.map(({ name, lastRun, lastSuccess, sinceSuccess }) => [
    shortened(name),
    lastRun === undefined ? "never" : localTime(lastRun.started),
    lastRun === undefined ? "" : ending(lastRun, held.get(name) === true),
    lastSuccess === undefined ? "never" : `${age(lastSuccess.ended)} ago`,
    ...[sinceSuccess.failed, sinceSuccess.skipped, sinceSuccess.refused].map(String),
  ]);
  return table(["NAME", "LAST RUN", "ENDED", "LAST SUCCESS", "FAILED", "SKIPPED", "REFUSED"], rows);
}

/** One line a run, oldest first. */
export function runTable({ name, runs, lastRun }: LockHistory, held: HeldNow): string {
  const rows = runs.map((run) => [
    localTime(run.started),
    seconds(run.waitSeconds),
    seconds(run.holdSeconds ?? (run.ended === undefined ? undefined : 0)),
    ending(run, run === lastRun && held.get(name) === true),
    shortened(run.label ?? ""),
  ]);
  return rows.length === 0 ? "" : table(["STARTED", "WAITED", "RAN", "ENDED", "LABEL"], rows);
}

/** `'backup' last succeeded 3h 2m ago; since then 2 failed, 5 skipped, 1 refused`. */
export function describeHistory({ name, since, lastSuccess, sinceSuccess }: LockHistory): string {
  const counts = Object.entries(sinceSuccess).filter(([, count]) => count > 0);
  const text =
    counts.map(([what, count]) => `${count} ${what}`).join(", ") || "nothing failed or was skipped";
  const quoted = `'${printable(name)}'`;
  if (lastSuccess !== undefined)
    return `${quoted} last succeeded ${age(lastSuccess.ended)} ago; since then ${text}`;
  return `${quoted} has not succeeded in this log, which begins ${age(since)} ago: ${text}`;
}

/** `ok`, `exit 3`, `SIGTERM`, `no end recorded`, with what else happened. */
function ending({ result, ended, exitCode, signal, reason, orphaned, split }: Run, runs: boolean): string {
  const how =
    exitCode === 0
      ? "ok"
      : exitCode !== undefined
        ? `exit ${exitCode}`
        : signal !== undefined
          ? printable(signal)
          : ended === undefined
            ? runs
              ? "running"
              : "no end recorded"
            : "released";
  const notes = [
    result === "overran" && "ran too long",
    result === "lost" && "lock lost",
    orphaned && "left processes",
    split && "lock file was replaced",
    reason !== undefined && shortened(reason),
  ].filter((note) => note !== false && note !== undefined);
  return notes.length === 0 ? how : `${how} (${notes.join("; ")})`;
}

/** `2026-03-01 04:05:06`, in the time zone of the reader. */
function localTime(iso: string): string {
  const date = new Date(iso);
  const two = (number: number) => String(number).padStart(2, "0");
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":")}`;
}

const age = (iso: string | undefined): string => humanDuration(Date.now() - Date.parse(iso ?? ""));

/** `0.4s`, `12s`, `3m 10s`. */
function seconds(value: number | undefined): string {
  if (value === undefined) return "-";
  return value < 10 ? `${Number(value.toFixed(1))}s` : humanDuration(value * 1000);
}

/** Columns two spaces apart; each line ends with a newline. */
function table(headings: readonly string[], rows: readonly string[][]): string {
  const used = headings.map((_, i) => rows.some((row) => row[i] !== ""));
  const all = [headings, ...rows].map((row) => row.filter((_, i) => used[i]));
  const widths = all[0]!.map((_, i) => Math.max(...all.map((row) => Bun.stringWidth(row[i]!))));
  return all
    .map((row) => {
      const padded = row.map((cell, i) => cell + " ".repeat(widths[i]! - Bun.stringWidth(cell)));
      return `${padded.join("  ").trimEnd()}\n`;
    })
    .join("");
}
