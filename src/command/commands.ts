/** The command tree, lazy as citty's `subCommands`: a command's file is loaded when it is run or described. */
import { printable } from "../errors.ts";
import type { Command, Loader } from "./cli/define.ts";
import { UsageError } from "./cli/exit-status.ts";
import { suggestion } from "./cli/suggest.ts";

export const COMMANDS: Record<string, Loader> = {
  run: async () => (await import("./run.ts")).default,
  status: async () => (await import("./status.ts")).default,
  list: async () => (await import("./list.ts")).default,
  held: async () => (await import("./held.ts")).default,
  wait: async () => (await import("./wait.ts")).default,
  hold: async () => (await import("./hold.ts")).default,
  stop: async () => (await import("./stop.ts")).default,
  history: async () => (await import("./history.ts")).default,
  path: async () => (await import("./path.ts")).default,
  doctor: async () => (await import("./doctor.ts")).default,
  flock: async () => (await import("./flock.ts")).default,
  completion: async () => (await import("./completion.ts")).default,
};

/** Loads the definition of a command; undefined where there is no such command. */
export async function loadCommand(name: string): Promise<Command | undefined> {
  return Object.hasOwn(COMMANDS, name) ? ((await COMMANDS[name]!()) as Command) : undefined;
}

/** The error for a name that is no command, with the name that was probably meant. */
export function unknownCommand(name: string): UsageError {
  if (name === "") return new UsageError("COMMAND is missing");
  const what = name.startsWith("-") ? "option" : "command";
  const meant = suggestion(name, [...Object.keys(COMMANDS), "help", "--help", "--version"]);
  return new UsageError(`unknown ${what} '${printable(name)}'${meant}`);
}

/** Loads every definition, in the order of the overview. */
export function loadCommands(): Promise<Command[]> {
  return Promise.all(Object.values(COMMANDS).map((load) => load() as Promise<Command>));
}
