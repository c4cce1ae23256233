/**
 * `exclusive completion`: a script for a shell.
 *
 * The script knows nothing. At each TAB it asks `exclusive completion --answer WORD...`, with the words up to the
 * cursor, and gets a candidate a line, its description behind a tab; or one line that says what the shell itself
 * completes: `:files`, `:directories`, or `:command N`, a command that begins at the N-th word (0: `exclusive`).
 */

import { printable } from "../errors.ts";
import { SIG } from "../os/signals.ts";
import { FileStore } from "../store/file/file-store.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { nearest, type OptionTable, parseOptions } from "./cli/options.ts";
import { COMMANDS } from "./commands.ts";
import bash from "./completions/exclusive.bash" with { type: "text" };
import fish from "./completions/exclusive.fish" with { type: "text" };
import zsh from "./completions/exclusive.zsh" with { type: "text" };
import { print } from "./output/print.ts";

export const OPTIONS = {} as const;

const SCRIPTS = { bash, zsh, fish };

export async function completion(args: string[]): Promise<number> {
  if (args[0] === "--answer") {
    for (const line of await answer(args.slice(1))) print(line);
    return EXIT.OK;
  }
  const [shell = "", ...more] = parseOptions(args, OPTIONS, true).rest;
  if (more.length > 0 || !Object.hasOwn(SCRIPTS, shell)) {
    const meant = nearest(shell, Object.keys(SCRIPTS));
    throw new UsageError(`completion takes bash, zsh or fish${meant ? ` (did you mean ${meant}?)` : ""}`);
  }
  print(SCRIPTS[shell as keyof typeof SCRIPTS].trim());
  return EXIT.OK;
}

const candidate = (value: string, description: string) => `${value}\t${description}`;

/** What can stand in the place of the last word. */
async function answer(words: string[]): Promise<string[]> {
  const current = words.at(-1) ?? "";
  const command = words[0]!;
  if (words.length <= 1)
    return Object.entries(COMMANDS).map(([name, { summary }]) => candidate(name, summary));
  if (command === "help") return words.length === 2 ? Object.keys(COMMANDS) : [];
  if (command === "flock") return [":files"];
  if (!Object.hasOwn(COMMANDS, command)) return [];
  const { options } = await COMMANDS[command]!.load();
  const before = readWords(words.slice(1, -1), options, command !== "run");
  if (before.awaits !== undefined) return valuesOf(options[before.awaits]!.value!, "");
  const attached = /^--([^=]+)=/.exec(current);
  if (!before.ended && attached && options[attached[1]!]?.value)
    return valuesOf(options[attached[1]!]!.value!, attached[0]);
  if (!before.ended && current.startsWith("-")) return optionsOf(options);
  return operands(command, before);
}

/** What the words before the cursor come to. */
interface Before {
  /** The option whose value is next. */
  awaits?: string;
  /** Are what follows operands, whatever they look like? */
  ended: boolean;
  /** Where the operands stand, counted from the program's name. */
  operands: { at: number; word: string }[];
  values: Record<string, string>;
}

/** Reads the words as `parseOptions` would, without complaint: somebody is still typing. */
function readWords(words: string[], table: OptionTable, permute: boolean): Before {
  const before: Before = { ended: false, operands: [], values: {} };
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (before.ended || word === "-" || !word.startsWith("-")) {
      before.operands.push({ at: i + 2, word });
      before.ended ||= !permute;
    } else if (word === "--") {
      before.ended = true;
    } else {
      const [flag, attached] = word.split(/=(.*)/s) as [string, string?];
      const name = word.startsWith("--")
        ? flag.slice(2)
        : Object.keys(table).find((key) => table[key]!.short === word.at(-1));
      if (name === undefined || !table[name]?.value) continue;
      if (attached === undefined && i === words.length - 1) return { ...before, awaits: name };
      before.values[name] = attached ?? words[++i]!;
    }
  }
  return before;
}

const optionsOf = (table: OptionTable) => [
  ...Object.entries(table).map(([name, { help }]) => candidate(`--${name}`, help)),
  candidate("--help", "say how this command is used"),
];

/** Candidates for a value, by what usage texts call it: a choice such as `text|json` names them all. */
function valuesOf(value: string, prefix: string): string[] {
  if (value.includes("|")) return value.split("|").map((choice) => prefix + choice);
  if (value === "DIR") return [":directories"];
  if (value === "FILE" || value === "PATH") return [":files"];
  if (value === "SIGNAL") return Object.keys(SIG).map((signal) => prefix + signal);
  return [];
}

async function operands(command: string, before: Before): Promise<string[]> {
  const { operands } = COMMANDS[command]!;
  const [first, second] = before.operands;
  if (first !== undefined && command !== "run") return [];
  if (first !== undefined) return [`:command ${first.at + (second?.word === "--" ? 2 : 1)}`];
  if (operands.startsWith("NAME")) return names(before.values.dir);
  return valuesOf(operands.replace(/[[\]]/g, ""), "");
}

/** The names of the locks that are there, but those that a terminal cannot show. */
async function names(dir: string | undefined): Promise<string[]> {
  const locks = await new FileStore({ dir }).list().catch(() => []);
  return locks
    .filter(({ name }) => printable(name) === name)
    .map(({ name, state, holder }) => candidate(name, holder?.label ? printable(holder.label) : state));
}
