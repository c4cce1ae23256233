/** `--help`: one screen a command, made from the commands' definitions. */
import { type Command, operandsOf, optionsOf, valueHint } from "./define.ts";

/** The smallest screen of a terminal. */
const WIDTH = 80;
const HEIGHT = 24;

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

/** The groups, each with those of its options that are among `names`. */
function grouped(names: readonly string[]): { title: string; common: string[]; rare: string[] }[] {
  const present = (group: readonly string[]) => group.filter((name) => names.includes(name));
  return GROUPS.map(({ title, common, rare }) => ({ title, common: present(common), rare: present(rare) }));
}

/**
 * The page of a command: usage, purpose, examples, options. One that would be longer than the screen has its options in
 * groups, without the rare ones unless `all` is set.
 */
export function page(command: Command, all = false): string {
  const { name, description, notes = [] } = command.meta;
  const head = [
    `Usage: ${usageOf(command)}`,
    description[0]!.toUpperCase() + description.slice(1),
    ...examplesOf(command),
  ];
  const rows = optionRows(command);
  const whole = [head, columns([...rows.values()], widthOf([...rows.values()], LEFT_MAX)), [...notes]];
  if (whole.flat().length < HEIGHT) return screen(whole);
  const groups = grouped([...rows.keys()]).map(({ title, common, rare }) => ({
    title,
    rows: [...common, ...(all ? rare : [])].map((option) => rows.get(option)!),
  }));
  const left = widthOf(
    groups.flatMap((group) => group.rows),
    LEFT_MAX,
  );
  const parts = groups.map((group) => [`${group.title}:`, ...columns(group.rows, left)]);
  if (all) return screen([head, ...parts, columns([rows.get("help")!], left), [...notes]]);
  return screen([head, ...parts, [...notes, `More options: exclusive help --all ${name}`]]);
}

/** The program's own page: one line a command. */
export function overview(commands: readonly Command[]): string {
  return screen([
    ["Usage: exclusive COMMAND [OPTION...]", SUMMARY, ...examplesOf(commands[0]!)],
    [
      ...columns(commands.map(({ meta }) => [meta.name, meta.description])),
      ...columns([
        ["-h, --help", "this page; exclusive COMMAND --help: that command's"],
        ["-V, --version", "the version"],
      ]),
    ],
    [
      "Exit status of run: the command's; 75: held or timed out; 64: usage",
      "Environment: EXCLUSIVE_DIR, EXCLUSIVE_STORE, EXCLUSIVE_LOG_FILE, NO_COLOR",
    ],
  ]);
}

function examplesOf({ meta }: Command): string[] {
  return columns(meta.examples.map(([line, effect]) => [`exclusive ${line}`, effect]));
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
function widthOf(rows: readonly Row[], most = WIDTH): number {
  return Math.max(...rows.map(([first]) => (first.length > most ? 0 : first.length)));
}

/** Two columns, each line no wider than the screen. */
function columns(rows: readonly Row[], left = widthOf(rows)): string[] {
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
