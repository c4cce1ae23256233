/** Figures: medians with their spread, and the tables made of them. */

export interface Figure {
  section: string;
  /** What was measured. */
  name: string;
  unit: "ms" | "µs" | "MiB" | "%" | "/s";
  median: number;
  /** The first quartile. */
  low: number;
  /** The third quartile. */
  high: number;
  samples: number;
}

/** A limit that was set beforehand. `value` is a median, or the ratio of two medians. */
export interface Target {
  section: string;
  what: string;
  value: number;
  /** The highest value that reaches the target. */
  limit: number;
}

export interface Results {
  made: string;
  quick: boolean;
  machine: string;
  versions: Record<string, string>;
  skipped: string[];
  figures: Figure[];
  targets: Target[];
}

/** @param samples at least one */
export function figure(section: string, name: string, unit: Figure["unit"], samples: number[]): Figure {
  const sorted = samples.toSorted((a, b) => a - b);
  const last = sorted.length - 1;
  const [median, low, high] = [
    (sorted[Math.floor(last / 2)]! + sorted[Math.ceil(last / 2)]!) / 2,
    sorted[Math.floor(last / 4)]!,
    sorted[Math.ceil((last * 3) / 4)]!,
  ].map(round) as [number, number, number];
  return { section, name, unit, median, low, high, samples: samples.length };
}

/** Rounds to four significant digits. */
export const round = (value: number): number => Number(value.toPrecision(4));

/** A Markdown table of figures, each with its ratio to the first one of its section and unit. */
export function table(figures: Figure[]): string {
  const rows = figures.map((f) => {
    const base = figures.find((other) => other.section === f.section && other.unit === f.unit)!;
    const ratio = base === f || base.median === 0 ? "" : `${(f.median / base.median).toFixed(2)}×`;
    return [f.section, f.name, `${f.median} ${f.unit}`, `${f.low} – ${f.high}`, ratio];
  });
  return markdown(["section", "what", "median", "middle half", "to the first"], rows);
}

export function targetTable(targets: Target[]): string {
  const rows = targets.map(({ section, what, value, limit }) => [
    section,
    what,
    String(value),
    `≤ ${limit}`,
    value <= limit ? "reached" : "**not reached**",
  ]);
  return markdown(["section", "target", "measured", "limit", ""], rows);
}

function markdown(head: string[], rows: string[][]): string {
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length), 3));
  const line = (cells: string[]) => `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}
