/**
 * A command's definition is citty's (`defineCommand`: meta, args, run). Help, completion, the manual page and the
 * reader of the command line (`options.ts`) are made from it. Here is what they need and citty has no field for.
 */
import type { ArgDef, ArgsDef, CommandContext, CommandDef, CommandMeta } from "citty";

/** A command line without the program's name, and its effect. */
export type Example = readonly [line: string, effect: string];

declare module "citty" {
  interface CommandMeta {
    /** Shown first by `--help`. */
    examples?: readonly Example[];
    /** Lines below the options of `--help`. */
    notes?: readonly string[];
  }
}

/** An option or operand. `details` are further sentences for the manual page; words in backquotes are set in bold. */
export type Arg = ArgDef & { alias?: string | string[]; options?: string[]; details?: string };

/** A definition as every command of this program has it: citty allows each part to be absent, or a function. */
export interface Command {
  meta: Required<Pick<CommandMeta, "name" | "description" | "examples">> & Pick<CommandMeta, "notes">;
  args: Record<string, Arg>;
  run: (context: CommandContext) => number | Promise<number>;
}

/** A definition of a command, whatever its arguments. */
// biome-ignore lint/suspicious/noExplicitAny: CommandDef is invariant in its arguments
export type AnyCommand = CommandDef<any>;

/** Loads a definition, as citty's `subCommands` do. */
export type Loader = () => Promise<AnyCommand>;

/** Keeps the literal types of a table of options and operands, for `parseOptions`. */
export function defineArgs<const T extends ArgsDef>(args: T): T {
  return args;
}

/** The options of a command by their long names, without its operands. */
export function optionsOf(args: Record<string, Arg>): [name: string, option: Arg][] {
  return Object.entries(args).filter(([, { type }]) => type !== "positional");
}

/** The operands in order: `NAME`, `[DIR]`. */
export function operandsOf(args: Record<string, Arg>): string[] {
  return Object.entries(args)
    .filter(([, { type }]) => type === "positional")
    .map(([name, { valueHint = name.toUpperCase(), required }]) =>
      required === false ? `[${valueHint}]` : valueHint,
    );
}

/** The name of an option's value in usage texts, `DIR` or `text|json`; undefined for a flag. */
export function valueHint(option: Arg): string | undefined {
  return option.type === "enum" ? option.options?.join("|") : option.valueHint;
}
