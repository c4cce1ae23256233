/**
 * Reads a command line by the POSIX rules, from the `args` of a citty definition. Not citty's parser, because options
 * must end at NAME, whatever options the wrapped command has; because an unknown option must be an error; and because
 * `run` starts too often to load a parser that does more.
 *
 * IEEE Std 1003.1, Utility Syntax Guidelines.
 */
import type { ArgsDef } from "citty";
import { printable } from "../../errors.ts";
import { type Arg, operandsOf, optionsOf, valueHint } from "./define.ts";
import { HelpRequest, UsageError } from "./exit-status.ts";
import { suggestion } from "./suggest.ts";

/** Values by long name: one of the choices of an enum, a string where the option takes a value, else true. */
export type OptionValues<T extends ArgsDef> = {
  -readonly [K in keyof T as T[K]["type"] extends "positional" ? never : K]?: T[K] extends {
    type: "enum";
    options: (infer Choice)[];
  }
    ? Choice
    : T[K]["type"] extends "string"
      ? string
      : true;
};

/** Whether a command wraps another one: its operands end in `[ARG...]`, and options end at the first operand. */
export function wrapsCommand(args: Record<string, Arg>): boolean {
  return operandsOf(args).at(-1)?.endsWith("[ARG...]") ?? false;
}

/**
 * Splits arguments into options and operands. Options end at `--`, and where a command is wrapped at the first operand.
 * @throws {HelpRequest} for `-h` or `--help`
 * @throws {UsageError} for an unknown option, a missing or wrong value, or a value where none belongs
 */
export function parseOptions<T extends ArgsDef>(
  rawArgs: readonly string[],
  args: T,
): { values: OptionValues<T>; rest: string[] } {
  const values: Record<string, string | true> = {};
  const rest: string[] = [];
  const permute = !wrapsCommand(args);
  let i = 0;
  const set = (name: string, shown: string, attached: string | undefined) => {
    const option = args[name]!;
    if (!takesValue(option)) {
      if (attached !== undefined) throw new UsageError(`${shown} takes no value`);
      values[name] = true;
      return;
    }
    if (attached === undefined && i >= rawArgs.length)
      throw new UsageError(`${shown} needs a value: ${valueHint(option)}`);
    const value = attached ?? rawArgs[i++]!;
    if (option.type === "enum") checkChoice(`--${name}`, value, option.options!);
    values[name] = value;
  };
  while (i < rawArgs.length) {
    const arg = rawArgs[i]!;
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
      if (isOption(args, name)) set(name, `--${name}`, attached);
      else if (name === "help") throw new HelpRequest();
      else throw unknownOption(`--${name}`, args);
    } else {
      readLetters(arg.slice(1), args, set);
    }
  }
  return { values: values as OptionValues<T>, rest: rest.concat(rawArgs.slice(i)) };
}

/** Reads combined short options. The first that takes a value takes the rest of the word, if there is any. */
function readLetters(
  letters: string,
  args: ArgsDef,
  set: (name: string, shown: string, attached?: string) => void,
): void {
  for (let j = 0; j < letters.length; j++) {
    const letter = letters[j]!;
    const name = optionOfLetter(args, letter);
    if (name === undefined && letter === "h") throw new HelpRequest();
    if (letter === "=" && j > 0) throw new UsageError(`-${letters[j - 1]} takes no value`);
    if (name === undefined) throw unknownOption(`-${letter}`, args, j === 0 ? letters : undefined);
    const remaining = letters.slice(j + 1);
    if (takesValue(args[name]!) && remaining !== "") {
      set(name, `-${letter}`, remaining);
      return;
    }
    set(name, `-${letter}`);
  }
}

/** The long name of the option with this letter. */
export function optionOfLetter(args: Record<string, Arg>, letter: string): string | undefined {
  return Object.keys(args).find((name) => args[name]!.alias === letter);
}

export function takesValue({ type }: Arg): boolean {
  return type === "string" || type === "enum";
}

function isOption(args: ArgsDef, name: string): boolean {
  return Object.hasOwn(args, name) && args[name]!.type !== "positional";
}

/** The text before the first separator, and the text after it where there is one. */
export function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}

/** What the letters of flock(1) are to a command that runs another one. */
const LETTERS_OF_FLOCK: Record<string, string> = {
  n: "without --wait it does not wait",
  x: "without --shared the lock is exclusive",
  c: "a shell script is a COMMAND: -- sh -c SCRIPT",
  F: "did you mean --exec?",
};

/** @param letters the whole word of a short option, as in kill(1)'s `-KILL` */
function unknownOption(option: string, args: ArgsDef, letters = ""): UsageError {
  const names = optionsOf(args).map(([name]) => name);
  let hint = "";
  if (option.startsWith("--")) hint = suggestion(option.slice(2), names, "--");
  else if (names.includes("signal") && /^(\d+|[A-Z]{2,}\d*)$/.test(letters))
    hint = ` (did you mean --signal ${letters}?)`;
  else if (wrapsCommand(args) && option[1]! in LETTERS_OF_FLOCK) hint = ` (${LETTERS_OF_FLOCK[option[1]!]})`;
  return new UsageError(`unknown option ${printable(option)}${hint}`);
}

/** @throws {UsageError} when the value is not one of the choices */
function checkChoice(option: string, value: string, choices: readonly string[]): void {
  if (choices.includes(value)) return;
  throw new UsageError(
    `${option} takes ${choices.join(", ")}, not '${printable(value)}'${suggestion(value, choices)}`,
  );
}
