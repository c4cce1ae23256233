/** Draws the chart of docs/speed.md from `results.json`: `bun bench/svg.ts`. */
import type { Figure, Results } from "./figures.ts";

const WIDTH = 800;
const LABEL = 290;
const BAR = 20;
const ROOM = 110;

interface Chart {
  title: string;
  figures: Figure[];
}

/** Draws the main comparisons. Shorter bars are better. */
export function draw({ figures, made, machine }: Results): string {
  const of = (section: string, unit: string, match: RegExp) =>
    figures.filter((f) => f.section === section && f.unit === unit && match.test(f.name));
  const charts: Chart[] = [
    { title: "One run of true, whole process (ms)", figures: of("wrap", "ms", /^(?!sem)/) },
    { title: "Taking and giving back a free lock (µs)", figures: of("cycle", "µs", /./) },
    { title: "From a release to the next holder (ms)", figures: of("handover", "ms", /^(?!.*waiting)/) },
  ].filter((chart) => chart.figures.length > 0);
  let y = 10;
  const parts = charts.map((chart) => {
    const drawn = bars(chart, y);
    y += 40 + chart.figures.length * (BAR + 6) + 14;
    return drawn;
  });
  const note = `Medians; whiskers: the middle half. ${made.slice(0, 10)}, ${machine}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y + 24}" viewBox="0 0 ${WIDTH} ${y + 24}" font-family="system-ui, sans-serif" font-size="13">
<title>exclusive beside its floors and peers</title>
<rect width="100%" height="100%" fill="#ffffff"/>
${parts.join("\n")}
<text x="10" y="${y + 10}" font-size="11" fill="#57606a">${escaped(note)}</text>
</svg>
`;
}

function bars({ title, figures }: Chart, top: number): string {
  // A bar that is too long is cut, and marked with an arrow beside its number.
  const largest = Math.max(...figures.map((f) => f.median));
  const ours = Math.max(...figures.filter(isOurs).map((f) => f.median));
  const end = Math.min(largest, ours * 4);
  const x = (value: number) => LABEL + (Math.min(value, end) / end) * (WIDTH - LABEL - ROOM);
  const rows = figures.map((f, i) => {
    const y = top + 36 + i * (BAR + 6);
    const middle = y + BAR / 2;
    const color = isOurs(f) ? "#1f6feb" : /floor/.test(f.name) ? "#8c959f" : "#d0d7de";
    const cut = f.median > end ? " →" : "";
    return [
      `<text x="${LABEL - 8}" y="${middle + 4}" text-anchor="end" fill="#1f2328">${escaped(f.name)}</text>`,
      `<rect x="${LABEL}" y="${y}" width="${(x(f.median) - LABEL).toFixed(1)}" height="${BAR}" fill="${color}"/>`,
      `<path d="M${x(f.low).toFixed(1)} ${middle}H${x(f.high).toFixed(1)}" stroke="#1f2328"/>`,
      `<text x="${(x(Math.max(f.median, f.high)) + 6).toFixed(1)}" y="${middle + 4}" fill="#1f2328">${f.median}${cut}</text>`,
    ].join("\n");
  });
  return `<text x="10" y="${top + 20}" font-weight="600" font-size="15" fill="#1f2328">${escaped(title)}</text>\n${rows.join("\n")}`;
}

const isOurs = ({ name }: Figure): boolean => /^(exclusive|acquire|library)/.test(name);

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

if (import.meta.main) {
  const results = (await Bun.file(`${import.meta.dir}/results.json`).json()) as Results;
  await Bun.write(`${import.meta.dir}/results.svg`, draw(results));
}
