/** Records docs/session.svg, a session in a real terminal: `npm run picture`. */
import { TempDir } from "../test/support/temp-dir.ts";
import { TerminalProcess } from "../test/support/terminal.ts";

const FILE = `${import.meta.dir}/session.svg`;
const COLUMNS = 80;

/** What is typed, and what the terminal shows when it is time to type the next line. */
const SESSION: readonly [typed: string, shows: RegExp][] = [
  ["exclusive run backup -- sleep 9 &", /\$ $/],
  ["exclusive run backup -- echo 'never printed'", /held by pid \d+.*\s+\$ $/],
  ["exclusive list", /COMMAND\s[^$]*\$ $/],
  ["exclusive run --timeout 1m backup -- echo 'my turn'", /\r\x1b\[Kmy turn\s+\$ $/],
  ["exclusive status backup", /is free\s+\$ $/],
];

/** What the terminal showed from this time on, in milliseconds. */
export interface Frame {
  at: number;
  lines: string[];
}

/** Runs the session, with pauses in which a viewer reads. */
export async function record(pause = 900): Promise<Frame[]> {
  using dir = new TempDir();
  const bin = `${import.meta.dir}/../dist`;
  const env = {
    PATH: `${bin}:${process.env.PATH}`,
    PS1: "$ ",
    NO_COLOR: "1",
    BASH_SILENCE_DEPRECATION_WARNING: "1",
  };
  await using terminal = new TerminalProcess(["bash", "--norc", "--noprofile", "--noediting"], {
    dir,
    env,
    columns: COLUMNS,
  });
  await terminal.shows(/\$ $/);
  terminal.type("set +m; printf '\\033[2J\\033[H'\n");
  await terminal.shows(/\x1b\[2J\x1b\[H\$ $/);
  const begun = performance.now();
  const frames: Frame[] = [];
  const look = () => {
    const lines = terminal.screen.filter((line) => !/^\[\d\]/.test(line)); // no job numbers
    if (lines.join("\n") !== frames.at(-1)?.lines.join("\n"))
      frames.push({ at: performance.now() - begun, lines });
  };
  const looking = setInterval(look, 40);
  for (const [typed, shows] of SESSION) {
    await Bun.sleep(pause / 2);
    for (const word of typed.split(/(?<= )/)) {
      terminal.type(word);
      await Bun.sleep(pause / 12);
    }
    terminal.type("\n");
    await terminal.shows(shows);
    await Bun.sleep(pause);
  }
  clearInterval(looking);
  look();
  return frames;
}

const FONT = 14;
const LINE = 20;
const COLUMN = 8.43;
const MARGIN = 14;
/** How long the last frame stays. */
const REST_MS = 4000;

/** Draws the frames: each line is shown from the frame that has it first to the one that has it no more. */
export function draw(frames: readonly Frame[]): string {
  const total = frames.at(-1)!.at + REST_MS;
  const rows = Math.max(...frames.map(({ lines }) => lines.length));
  const [width, height] = [COLUMNS * COLUMN + 2 * MARGIN, rows * LINE + 2 * MARGIN].map(Math.round);
  const styles: string[] = [];
  const texts: string[] = [];
  for (let row = 0; row < rows; row++) {
    for (const { line, from, to } of spans(frames, row, total)) {
      const isLast = to === total;
      const name = `k${styles.length}`;
      const percent = (at: number) => `${((100 * at) / total).toFixed(2)}%`;
      styles.push(
        `@keyframes ${name}{0%{opacity:0}${percent(from)}{opacity:1}${isLast ? "" : `${percent(to)}{opacity:0}`}}`,
      );
      const y = MARGIN + (row + 0.75) * LINE;
      texts.push(
        `<text y="${y}" class="${kindOf(line)}${isLast ? "" : " gone"}" style="animation-name:${name}">${escaped(line)}</text>`,
      );
    }
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">
<title>A session: one run is refused while another holds the lock, list names the holder, a third run waits for it</title>
<style>
text{font:${FONT}px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#d4d7dd;white-space:pre;animation:${(total / 1000).toFixed(1)}s step-end infinite}
.typed{fill:#fff;font-weight:bold}.message{fill:#e5c07b}.head{fill:#7aa2f7}.gone{opacity:0}
@media(prefers-reduced-motion){text{animation:none}}
${styles.join("\n")}
</style>
<rect width="100%" height="100%" rx="8" fill="#1b1e25"/>
<g transform="translate(${MARGIN} 0)">
${texts.join("\n")}
</g>
</svg>
`;
}

/** What a row shows, and from when to when. */
function spans(frames: readonly Frame[], row: number, total: number) {
  const found: { line: string; from: number; to: number }[] = [];
  for (const { at, lines } of frames) {
    const line = lines[row] ?? "";
    const last = found.at(-1);
    if (last?.line === line) continue;
    if (last !== undefined) last.to = at;
    found.push({ line, from: at, to: total });
  }
  return found.filter(({ line }) => line !== "");
}

function kindOf(line: string): string {
  if (line.startsWith("$ ")) return "typed";
  if (line.startsWith("exclusive: ")) return "message";
  return line.startsWith("NAME ") ? "head" : "text";
}

const escaped = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(" ", "\u00a0");

if (import.meta.main) await Bun.write(FILE, draw(await record()));
