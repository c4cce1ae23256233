/** NAME and COMMAND of `exclusive run`, and what a misplaced option was meant to be. */
import type { ArgsDef } from "citty";
import { shellWord } from "../../os/processes.ts";
import { UsageError } from "../cli/exit-status.ts";
import { parseOptions } from "../cli/options.ts";

/** A duration where an operand is expected. */
export const BARE_DURATION = /^\d+(\.\d+)?(ms|s|m|h|d)?$/;

/**
 * Splits the operands into the lock's name and the command.
 * @param args the whole command line, of which `rest` is the end
 * @throws {UsageError} when one is missing, and for an option behind NAME: `--` before COMMAND permits any word
 */
export function operands(
  args: readonly string[],
  rest: readonly string[],
  definition: ArgsDef,
  waits = false,
): { name: string; argv: string[] } {
  const [name, ...tail] = rest;
  if (name === undefined) throw new UsageError("missing NAME");
  const options = args.slice(0, args.length - rest.length);
  if (waits && BARE_DURATION.test(name) && options.at(-1) !== "--")
    throw new UsageError(`--wait takes no value (did you mean --timeout ${name}?)`);
  const argv = tail[0] === "--" ? tail.slice(1) : tail;
  if (argv.length === 0) throw new UsageError("missing COMMAND");
  if (argv === tail && /^-./.test(tail[0]!)) throw misplaced(options, name, tail, definition);
  return { name, argv };
}

/** The error for options behind NAME, with the command line in the right order. */
function misplaced(options: string[], name: string, tail: string[], definition: ArgsDef): UsageError {
  if (tail[0] === "-c" && tail.length > 1) {
    const line = [...options, name, "--", "sh", "-c", tail[1]!].map(quoted).join(" ");
    return new UsageError(`a shell script is a COMMAND: exclusive run ${line}`);
  }
  let command: string[];
  try {
    command = parseOptions(tail, definition).rest;
  } catch {
    command = tail.slice(1);
    if (command[0] === "--") command.shift();
  }
  const behind = tail.slice(0, tail.length - command.length);
  const before = [...options, ...behind].filter((word) => word !== "--");
  const shown = command.length > 0 ? command.map(quoted) : ["COMMAND"];
  return new UsageError(
    `options go before NAME: exclusive run ${[...before, name].map(quoted).join(" ")} -- ${shown.join(" ")}`,
  );
}

/** A word as a shell needs it, without the password of a URL. */
function quoted(word: string): string {
  return shellWord(word.replace(/:\/\/[^/@]*@/, "://"));
}
