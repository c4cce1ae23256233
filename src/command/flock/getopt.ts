/**
 * Options as getopt_long(3) of the GNU C library reads them, with its messages: long names may be abbreviated, letters
 * combined, values attached, and options end at the first other argument (the `+` of its letters). For the
 * front that must take exactly what the original takes; our own commands have `options.ts`.
 */
import { splitOnce } from "../cli/options.ts";

/** A long option. Those with the same key are names of one option. */
export interface LongOption {
  name: string;
  /** A letter, or the long name where it has none. */
  key: string;
  takesValue?: boolean;
  /** It must be written out, and does not make the abbreviation of another ambiguous. */
  unabbreviated?: boolean;
}

/** What getopt_long(3) says on stderr, without the program's name. */
export class GetoptError extends Error {}

/**
 * Yields each option's key and value (empty where it takes none), in order, and returns the other arguments.
 * @param letters as in C: a letter with a `:` behind it takes a value
 * @param ends tells an operand that looks like an option: it ends the options
 * @throws {GetoptError} when an option is reached that is wrong: those before it have been yielded
 */
export function* getopt(
  args: readonly string[],
  letters: string,
  long: readonly LongOption[],
  ends: (arg: string) => boolean,
): Generator<[key: string, value: string], string[]> {
  let i = 0;
  while (i < args.length) {
    const arg = args[i]!;
    if (arg === "-" || !arg.startsWith("-") || ends(arg)) break;
    i++;
    if (arg === "--") break;
    if (arg.startsWith("--")) {
      const [typed, attached] = splitOnce(arg.slice(2), "=");
      const { name, key, takesValue } = findLong(typed, arg, long);
      if (!takesValue && attached !== undefined)
        throw new GetoptError(`option '--${name}' doesn't allow an argument`);
      if (takesValue && attached === undefined && i === args.length)
        throw new GetoptError(`option '--${name}' requires an argument`);
      yield [key, takesValue ? (attached ?? args[i++]!) : ""];
      continue;
    }
    for (let j = 1; j < arg.length; j++) {
      const letter = arg[j]!;
      const at = letter === ":" ? -1 : letters.indexOf(letter);
      if (at < 0) throw new GetoptError(`invalid option -- '${letter}'`);
      if (letters[at + 1] !== ":") {
        yield [letter, ""];
        continue;
      }
      const attached = arg.slice(j + 1);
      if (attached === "" && i === args.length)
        throw new GetoptError(`option requires an argument -- '${letter}'`);
      yield [letter, attached || args[i++]!];
      break;
    }
  }
  return args.slice(i);
}

/** The option of this name, or the only one whose name begins so. */
function findLong(typed: string, shown: string, long: readonly LongOption[]): LongOption {
  const exact = long.find(({ name }) => name === typed);
  if (exact) return exact;
  const [first, ...more] = long.filter((option) => !option.unabbreviated && option.name.startsWith(typed));
  if (!first) throw new GetoptError(`unrecognized option '${shown}'`);
  // Two names of one option are no ambiguity, and the second is not shown where there is one.
  const others = more.filter(({ key }) => key !== first.key);
  if (others.length === 0) return first;
  const possibilities = [first, ...others].map(({ name }) => ` '--${name}'`).join("");
  throw new GetoptError(`option '${shown}' is ambiguous; possibilities:${possibilities}`);
}
