/** `--help`: one screen a command, made of the tables that the commands themselves are made of. */
import { COMMANDS } from "../commands.ts";
import type { OptionTable } from "./options.ts";

/** The screen that every terminal has at least. */
const WIDTH = 80;
const HEIGHT = 24;

/** A wider first column is an exception, and does not move the second one. */
const LEFT_MAX = 28;

/** `exclusive run [OPTION...] NAME [--] COMMAND [ARG...]`; of the program, where there is no such command. */
export function synopsis(name: string): string {
  if (!Object.hasOwn(COMMANDS, name)) return "exclusive COMMAND [OPTION...] (exclusive --help lists them)";
  return `exclusive ${name} [OPTION...] ${COMMANDS[name]!.operands}`.trimEnd();
}

/** What a command is for and how it is called. */
export async function page(name: string): Promise<string> {
  const { summary, load } = COMMANDS[name]!;
  const { options } = await load();
  return screen([
    [summary[0]!.toUpperCase() + summary.slice(1), ...examplesOf(name)],
    [`Usage: ${synopsis(name)}`, ...columns(optionRows(options), LEFT_MAX)],
  ]);
}

/** The program's own page. */
export function overview(): string {
  return screen([
    ["While one process holds a named lock, no other process gets it", ...examplesOf("run")],
    [
      "Usage: exclusive COMMAND [OPTION...]",
      ...columns(Object.entries(COMMANDS).map(([name, { summary }]) => [name, summary])),
      ...columns([
        ["-h, --help", "this page; after COMMAND, that command's"],
        ["-V, --version", "the version"],
      ]),
    ],
  ]);
}

function examplesOf(name: string): string[] {
  return columns(COMMANDS[name]!.examples.map(([line, does]) => [`exclusive ${line}`, does]));
}

/** Parted by empty lines, if there is room. */
function screen(parts: string[][]): string {
  const lines = parts.flat().length;
  return parts.map((part) => part.join("\n")).join(lines + parts.length < HEIGHT ? "\n\n" : "\n");
}

function optionRows(options: OptionTable): [string, string][] {
  const rows = Object.entries(options).map(([name, { short, value, help }]): [string, string] => [
    `${short ? `-${short}, ` : "    "}--${name}${value ? ` ${value}` : ""}`,
    help,
  ]);
  return [...rows, ["-h, --help", "this page"]];
}

/** Two columns, each line no wider than the screen. */
function columns(rows: (readonly [string, string])[], most = WIDTH): string[] {
  const left = Math.max(...rows.map(([first]) => (first.length > most ? 0 : first.length)));
  return rows.flatMap(([first, second]) => {
    if (first.length > left) return [`  ${first}  ${second}`];
    const lines = wrapped(second, WIDTH - left - 4);
    return lines.map((line, i) => `  ${(i === 0 ? first : "").padEnd(left)}  ${line}`.trimEnd());
  });
}

function wrapped(text: string, width: number): string[] {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line.length + word.length + 1 > width) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines;
}
