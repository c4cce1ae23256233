/** `--help`: one screen a command, made from the commands' definitions. */
import { type Command, operandsOf, optionsOf, valueHint } from "./define.ts";

/** The smallest screen of a terminal. */
const WIDTH = 80;
const HEIGHT = 24;

/** Longer option names overflow their column instead of widening it. */
const LEFT_MAX = 28;

const SUMMARY = "exclusive - run commands under a named lock";

/** `exclusive run [OPTION...] NAME [--] COMMAND [ARG...]`; that of the program where there is no such command. */
export function synopsis(command: Command | undefined): string {
  return command ? usageOf(command) : "exclusive COMMAND [OPTION...] (exclusive --help lists them)";
}

function usageOf({ meta, args }: Command): string {
  return ["exclusive", meta.name, "[OPTION...]", ...operandsOf(args)].join(" ");
}

/** The page of a command: its purpose, examples, usage and options. */
export function page(command: Command): string {
  const { description } = command.meta;
  return screen([
    [description[0]!.toUpperCase() + description.slice(1), ...examplesOf(command)],
    [`Usage: ${usageOf(command)}`, ...columns(optionRows(command), LEFT_MAX)],
  ]);
}

/** The program's own page: one line a command. */
export function overview(commands: readonly Command[]): string {
  return screen([
    [SUMMARY, ...examplesOf(commands[0]!)],
    [
      "Usage: exclusive COMMAND [OPTION...]",
      ...columns(commands.map(({ meta }) => [meta.name, meta.description])),
      ...columns([
        ["-h, --help", "this page; after COMMAND, that command's"],
        ["-V, --version", "the version"],
      ]),
    ],
  ]);
}

function examplesOf({ meta }: Command): string[] {
  return columns(meta.examples.map(([line, effect]) => [`exclusive ${line}`, effect]));
}

/** Sections separated by blank lines when the page fits the screen. */
function screen(parts: string[][]): string {
  const lines = parts.flat().length;
  return parts.map((part) => part.join("\n")).join(lines + parts.length < HEIGHT ? "\n\n" : "\n");
}

function optionRows({ args }: Command): [string, string][] {
  const rows = optionsOf(args).map(([name, option]): [string, string] => {
    const hint = valueHint(option);
    const letter = option.alias ? `-${option.alias}, ` : "    ";
    return [`${letter}--${name}${hint ? ` ${hint}` : ""}`, option.description ?? ""];
  });
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
