/**
 * Answers a completion script: `exclusive completion --answer WORD...`, called at each TAB with the words up to the
 * cursor. An answer is one candidate a line, with a tab before its description; or one line that leaves the completion
 * to the shell: `:files`, `:directories`, or `:command N`, a command that begins at word N (`exclusive` is word 0).
 */
import { printable } from "../../errors.ts";
import { SIG } from "../../os/signals.ts";
import { FileStore } from "../../store/file/file-store.ts";
import { type Arg, operandsOf, optionsOf, valueHint } from "../cli/define.ts";
import { EXIT } from "../cli/exit-status.ts";
import { optionOfLetter, splitOnce, takesValue, wrapsCommand } from "../cli/options.ts";
import { COMMANDS, loadCommand, loadCommands } from "../commands.ts";
import { print } from "../output/print.ts";

export async function answerCompletion(words: string[]): Promise<number> {
  for (const line of await answer(words)) print(line);
  return EXIT.OK;
}

const candidate = (value: string, description: string) => `${value}\t${description}`;

/** The candidates for the last word. */
async function answer(words: string[]): Promise<string[]> {
  const current = words.at(-1) ?? "";
  const name = words[0]!;
  if (words.length <= 1)
    return (await loadCommands()).map(({ meta }) => candidate(meta.name, meta.description));
  if (name === "help") return words.length === 2 ? Object.keys(COMMANDS) : [];
  if (name === "flock") return [":files"];
  const args = (await loadCommand(name))?.args;
  if (args === undefined) return [];
  const before = readWords(words.slice(1, -1), args);
  if (before.awaits !== undefined) return valuesOf(args[before.awaits]!, "");
  const [attachedTo, attached] = splitOnce(current, "=");
  const option = attached === undefined || !current.startsWith("--") ? undefined : args[attachedTo.slice(2)];
  if (!before.ended && option && takesValue(option)) return valuesOf(option, `${attachedTo}=`);
  if (!before.ended && current.startsWith("-")) return optionCandidates(args);
  return operandCandidates(args, before);
}

/** The meaning of the words before the cursor. */
interface Before {
  /** The option whose value is next. */
  awaits?: string;
  /** Options have ended: the rest are operands. */
  ended: boolean;
  /** `at` counts from the program's name. */
  operands: { at: number; word: string }[];
  values: Record<string, string>;
}

/** Reads the words as `parseOptions` does, without errors: the command line is not finished. */
function readWords(words: string[], args: Record<string, Arg>): Before {
  const before: Before = { ended: false, operands: [], values: {} };
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (before.ended || word === "-" || !word.startsWith("-")) {
      before.operands.push({ at: i + 2, word });
      before.ended ||= wrapsCommand(args);
    } else if (word === "--") {
      before.ended = true;
    } else {
      const [flag, attached] = splitOnce(word, "=");
      const name = word.startsWith("--") ? flag.slice(2) : optionOfLetter(args, word.at(-1)!);
      if (name === undefined || !args[name] || !takesValue(args[name])) continue;
      if (attached === undefined && i === words.length - 1) return { ...before, awaits: name };
      before.values[name] = attached ?? words[++i]!;
    }
  }
  return before;
}

const optionCandidates = (args: Record<string, Arg>) => [
  ...optionsOf(args).map(([name, { description = "" }]) => candidate(`--${name}`, description)),
  candidate("--help", "show how this command is used"),
];

function valuesOf(option: Arg, prefix: string): string[] {
  return valuesOfHint(valueHint(option) ?? "", prefix);
}

/** Candidates for a value, by its name in usage texts; `text|json` lists them all. */
function valuesOfHint(hint: string, prefix: string): string[] {
  if (hint.includes("|")) return hint.split("|").map((choice) => prefix + choice);
  if (hint === "DIR") return [":directories"];
  if (hint === "FILE" || hint === "PATH") return [":files"];
  if (hint === "SIGNAL") return Object.keys(SIG).map((signal) => prefix + signal);
  return [];
}

async function operandCandidates(args: Record<string, Arg>, before: Before): Promise<string[]> {
  const [first, second] = before.operands;
  if (first !== undefined && !wrapsCommand(args)) return [];
  if (first !== undefined) return [`:command ${first.at + (second?.word === "--" ? 2 : 1)}`];
  const hint = (operandsOf(args)[0] ?? "").replace(/[[\]]/g, "");
  return hint === "NAME" ? lockNames(before.values.dir) : valuesOfHint(hint, "");
}

/** Names of existing locks, except those that are not safe on a terminal. */
async function lockNames(dir: string | undefined): Promise<string[]> {
  const locks = await new FileStore({ dir }).list().catch(() => []);
  return locks
    .filter(({ name }) => printable(name) === name)
    .map(({ name, state, holder }) => candidate(name, holder?.label ? printable(holder.label) : state));
}
