/**
 * Reading a command line by the POSIX rules: a table of options goes in, values come out, and what is not in the
 * table is an error. Ours rather than a library's because options must end at NAME, whatever the wrapped command's
 * own options look like, and because `run` starts too often to load a parser that does more.
 */
import { printable } from "../../errors.ts";
import { HelpRequest, UsageError } from "./exit-status.ts";

/** An option: its long name is its key in the table. */
export interface OptionSpec {
  short?: string;
  /** What the value is called in usage texts; an option without is a flag. */
  value?: string;
  help: string;
}

export type OptionTable = Record<string, OptionSpec>;

/** Values by long name: a string where the option takes a value, else true. */
export type OptionValues<T extends OptionTable> = {
  -readonly [K in keyof T]?: T[K] extends { value: string } ? string : true;
};

/**
 * Splits arguments into options and the rest. Options end at the first argument that is none, or at `--`;
 * with `permute` they may also stand behind it.
 * @throws {HelpRequest} for `-h` or `--help`
 * @throws {UsageError} for an unknown option, a missing value, or a value where none belongs
 */
export function parseOptions<const T extends OptionTable>(
  args: readonly string[],
  table: T,
  permute = false,
): { values: OptionValues<T>; rest: string[] } {
  const values: Record<string, string | true> = {};
  const rest: string[] = [];
  let i = 0;
  const set = (name: string, shown: string, attached: string | undefined) => {
    const takesValue = table[name]!.value !== undefined;
    if (!takesValue && attached !== undefined) throw new UsageError(`${shown} takes no value`);
    if (takesValue && attached === undefined && i >= args.length)
      throw new UsageError(`${shown} needs a value: ${table[name]!.value}`);
    values[name] = takesValue ? (attached ?? args[i++]!) : true;
  };
  while (i < args.length) {
    const arg = args[i]!;
    if (arg === "--") {
      i++;
      break;
    }
    if (arg === "-" || !arg.startsWith("-")) {
      if (!permute) break;
      rest.push(arg);
      i++;
      continue;
    }
    i++;
    if (arg.startsWith("--")) {
      const [name, attached] = splitOnce(arg.slice(2), "=");
      if (name === "help" && !Object.hasOwn(table, name)) throw new HelpRequest();
      if (!Object.hasOwn(table, name)) throw unknownOption(`--${name}`, table);
      set(name, `--${name}`, attached);
    } else {
      shortOptions(arg.slice(1), table, set);
    }
  }
  return { values: values as OptionValues<T>, rest: rest.concat(args.slice(i)) };
}

function shortOptions(
  letters: string,
  table: OptionTable,
  set: (name: string, shown: string, attached?: string) => void,
): void {
  for (let j = 0; j < letters.length; j++) {
    const letter = letters[j]!;
    const name = Object.keys(table).find((key) => table[key]!.short === letter);
    if (name === undefined && letter === "h") throw new HelpRequest();
    if (name === undefined) throw unknownOption(`-${letter}`, table);
    const remaining = letters.slice(j + 1);
    if (table[name]!.value !== undefined && remaining !== "") {
      set(name, `-${letter}`, remaining);
      return;
    }
    set(name, `-${letter}`);
  }
}

/** The text before the first separator, and the text behind it where there is one. */
export function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

function unknownOption(option: string, table: OptionTable): UsageError {
  const meant = option.startsWith("--") && nearest(option.slice(2), Object.keys(table));
  return new UsageError(`unknown option ${printable(option)}${meant ? ` (did you mean --${meant}?)` : ""}`);
}

/** The candidate that fewest slips turn into `word`, if it is a near miss. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const ranked = candidates
    .map((candidate) => ({ candidate, slips: distance(word, candidate) }))
    .sort((a, b) => a.slips - b.slips);
  const best = ranked[0];
  return best && best.slips <= Math.max(1, Math.floor(word.length / 3)) ? best.candidate : undefined;
}

/** Edits between two words: insert, delete, replace, or swap two neighbours (Damerau-Levenshtein, restricted). */
function distance(a: string, b: string): number {
  const rows: number[][] = Array.from({ length: a.length + 1 }, (_, i) => [i]);
  for (let j = 0; j <= b.length; j++) rows[0]![j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const substitution = rows[i - 1]![j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(rows[i - 1]![j]! + 1, rows[i]![j - 1]! + 1, substitution);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, rows[i - 2]![j - 2]! + 1);
      rows[i]![j] = best;
    }
  }
  return rows[a.length]![b.length]!;
}
