/** `--help`: one screen a command, made from the commands' definitions. */
import { type Command, operandsOf, optionsOf, valueHint } from "./define.ts";

/** The smallest screen of a terminal. */
const WIDTH = 80;
const HEIGHT = 24;

/** An effect in fewer columns is put below its example. */
const EFFECT_MIN = 20;

/** Longer option names overflow their column instead of widening it. */
const LEFT_MAX = 28;

const SUMMARY = "Run commands under a named lock";

/** `exclusive run [OPTION...] NAME [--] COMMAND [ARG...]`; that of the program where there is no such command. */
export function synopsis(command: Command | undefined): string {
  return command ? usageOf(command) : "exclusive COMMAND [OPTION...] (exclusive --help lists them)";
}

function usageOf({ meta, args }: Command): string {
  return ["exclusive", meta.name, "[OPTION...]", ...operandsOf(args)].join(" ");
}

/**
 * The options of a page that is longer than a screen, in groups: those that the page shows, and those that only the whole
 * page shows. A test holds that the groups have every option of such a command.
 */
const GROUPS: readonly { title: string; common: readonly string[]; rare: readonly string[] }[] = [
  { title: "Waiting", common: ["wait", "timeout", "if-held"], rare: ["overdue", "inherit"] },
  {
    title: "What to lock",
    common: ["slots", "shared", "dir", "file", "store"],
    rare: ["keep", "store-file", "ttl"],
  },
  {
    title: "The command",
    common: ["max-runtime", "exec"],
    rare: ["kill-after", "hold-for", "close", "conflict-exit-code"],
  },
  {
    title: "Output",
    common: ["quiet", "log-file"],
    rare: ["verbose", "label", "log-format", "on-event"],
  },
];

/** Whether the groups have every option of the command: it has more than a screen. */
const hasGroups = ({ args }: Command): boolean =>
  optionsOf(args).every(([name]) => GROUPS.some(({ common, rare }) => [...common, ...rare].includes(name))) &&
  optionsOf(args).length >= HEIGHT;

/** The groups, each with those of its options that are among `names`. */
function grouped(names: readonly string[]): { title: string; common: string[]; rare: string[] }[] {
  const present = (group: readonly string[]) => group.filter((name) => names.includes(name));
  return GROUPS.map(({ title, common, rare }) => ({ title, common: present(common), rare: present(rare) }));
}

export interface PageOptions {
  /** With the rare options. */
  all?: boolean | undefined;
  /** Columns of the terminal. */
  width?: number | undefined;
}

/**
 * The page of a command: usage, purpose, examples, options. One that would be longer than the screen has its options in
 * groups, without the rare ones unless `all` is set.
 */
export function page(command: Command, { all = false, width = WIDTH }: PageOptions = {}): string {
  const { name, description, notes = [] } = command.meta;
  const head = [
    ...wrapped(`Usage: ${usageOf(command)}`, width),
    description[0]!.toUpperCase() + description.slice(1),
    ...examplesOf(command, width),
  ];
  const foot = notes.flatMap((note) => wrapped(note, width));
  const rows = optionRows(command);
  const whole = [head, columns([...rows.values()], widthOf([...rows.values()], LEFT_MAX), width), foot];
  if (!hasGroups(command)) return screen(whole);
  const groups = grouped([...rows.keys()]).map(({ title, common, rare }) => ({
    title,
    rows: [...common, ...(all ? rare : [])].map((option) => rows.get(option)!),
  }));
  const left = widthOf(
    groups.flatMap((group) => group.rows),
    LEFT_MAX,
  );
  const parts = groups.map((group) => [`${group.title}:`, ...columns(group.rows, left, width)]);
  if (all) return screen([head, ...parts, columns([rows.get("help")!], left, width), foot]);
  return screen([head, ...parts, [...foot, `More options: exclusive help --all ${name}`]]);
}

/** The program's own page: one line a command. */
export function overview(commands: readonly Command[], width = WIDTH): string {
  const rows = (rows: readonly Row[]) => columns(rows, widthOf(rows), width);
  return screen([
    ["Usage: exclusive COMMAND [OPTION...]", SUMMARY, ...examplesOf(commands[0]!, width)],
    [
      ...rows(commands.map(({ meta }) => [meta.name, meta.description])),
      ...rows([
        ["-h, --help", "this page; exclusive COMMAND --help: that command's"],
        ["-V, --version", "the version"],
      ]),
    ],
    [
      "Exit status of run: the command's; 75: held or timed out; 64: usage",
      "Environment: EXCLUSIVE_DIR, EXCLUSIVE_STORE, EXCLUSIVE_LOG_FILE, NO_COLOR",
    ].flatMap((note) => wrapped(note, width)),
  ]);
}

/** Each with its effect beside it, or below it where the line leaves too little room. */
function examplesOf({ meta }: Command, width: number): string[] {
  const rows = meta.examples.map(([line, effect]): Row => [`exclusive ${line}`, effect]);
  const left = widthOf(rows);
  if (width - left - 4 >= EFFECT_MIN) return columns(rows, left, width);
  return rows.flatMap(([line, effect]) => [`  ${line}`, ...(effect === "" ? [] : [`      ${effect}`])]);
}

/** Sections separated by blank lines when the page fits the screen. */
function screen(parts: string[][]): string {
  const sections = parts.filter((part) => part.length > 0);
  const lines = sections.flat().length + sections.length;
  return sections.map((part) => part.join("\n")).join(lines <= HEIGHT ? "\n\n" : "\n");
}

/** The rows of the options by their long names; `help` is last. */
function optionRows({ args }: Command): Map<string, [string, string]> {
  const rows = optionsOf(args).map(([name, option]): [string, [string, string]] => {
    const hint = valueHint(option);
    const letter = option.alias ? `-${option.alias}, ` : "    ";
    return [name, [`${letter}--${name}${hint ? ` ${hint}` : ""}`, option.description ?? ""]];
  });
  return new Map([...rows, ["help", ["-h, --help", "this page"]]]);
}

type Row = readonly [string, string];

/** The width of the first column: that of its longest text of at most `most` characters. */
function widthOf(rows: readonly Row[], most = Number.POSITIVE_INFINITY): number {
  return Math.max(...rows.map(([first]) => (first.length > most ? 0 : first.length)));
}

/** Two columns, each line no wider than the screen. */
function columns(rows: readonly Row[], left: number, width: number): string[] {
  return rows.flatMap(([first, second]) => {
    if (first.length > left)
      return first.length + second.length + 4 <= width
        ? [`  ${first}  ${second}`]
        : [`  ${first}`, ...wrapped(second, width - left - 4).map((line) => " ".repeat(left + 4) + line)];
    const lines = wrapped(second, width - left - 4);
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
