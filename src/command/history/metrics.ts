/** Histories in Prometheus's text format: https://prometheus.io/docs/instrumenting/exposition_formats/ */

import { type LockHistory, RESULTS, TURNED_AWAY } from "./runs.ts";
import type { HeldNow } from "./table.ts";

/** What a shell makes of a signal: 128 and its number. A command that was killed has no exit status of its own. */
const KILLED = 128;

interface Metric {
  name: string;
  type: "gauge" | "counter";
  help: string;
  /** The labels besides the lock's name, as text, and the value; a value that is undefined is left out. */
  samples(history: LockHistory): [labels: string, value: number | undefined][];
}

const one = (value: number | undefined): [string, number | undefined][] => [["", value]];
const unix = (iso: string | undefined) => (iso === undefined ? undefined : Date.parse(iso) / 1000);

const HELP = {
  skipped: "Runs that were skipped because the lock was held.",
  refused: "Runs that were refused because the lock was held, or could not be had.",
  superseded: "Runs whose place in the queue a newer run took.",
  overdue: "Runs that found a holder that had run longer than --overdue.",
};

const METRICS: Metric[] = [
  {
    name: "exclusive_last_success_timestamp_seconds",
    type: "gauge",
    help: "When a run last ended with exit status 0.",
    samples: ({ lastSuccess }) => one(unix(lastSuccess?.ended)),
  },
  {
    name: "exclusive_last_run_timestamp_seconds",
    type: "gauge",
    help: "When a run last acquired the lock.",
    samples: ({ lastRun }) => one(unix(lastRun?.started)),
  },
  {
    name: "exclusive_last_exit_code",
    type: "gauge",
    help: "Exit status of the run that ended last; 128 where a signal killed it.",
    samples: ({ lastEnded }) =>
      one(lastEnded?.exitCode ?? (lastEnded?.signal === undefined ? undefined : KILLED)),
  },
  {
    name: "exclusive_runs_total",
    type: "counter",
    help: "Runs that have ended, by result.",
    samples: ({ results }) => RESULTS.map((result) => [`,result="${result}"`, results[result]]),
  },
  ...TURNED_AWAY.map(
    (event): Metric => ({
      name: `exclusive_${event}_total`,
      type: "counter",
      help: HELP[event],
      samples: ({ turnedAway }) => one(turnedAway[event]),
    }),
  ),
  {
    name: "exclusive_held_seconds_total",
    type: "counter",
    help: "Seconds for which ended runs have held the lock.",
    samples: ({ heldSeconds }) => one(Number(heldSeconds.toFixed(3))),
  },
];

export function metrics(all: readonly LockHistory[], held: HeldNow): string {
  const heldNow: Metric = {
    name: "exclusive_held",
    type: "gauge",
    help: "Whether the lock is held now.",
    samples: ({ name }) => one(held.has(name) ? Number(held.get(name)) : undefined),
  };
  return [...METRICS, heldNow].map((metric) => textOf(metric, all)).join("");
}

function textOf({ name, type, help, samples }: Metric, all: readonly LockHistory[]): string {
  const lines = all.flatMap((history) =>
    samples(history)
      .filter(([, value]) => value !== undefined)
      .map(([labels, value]) => `${name}{name="${escaped(history.name)}"${labels}} ${value}\n`),
  );
  return lines.length === 0 ? "" : `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

const escaped = (text: string): string =>
  text.toWellFormed().replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
