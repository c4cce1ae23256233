/** The command tree, lazy as citty's `subCommands`: a command's file is loaded when it is run or described. */
import { printable } from "../errors.ts";
import { shellWord } from "../os/processes.ts";
import type { Command, Loader } from "./cli/define.ts";
import { UsageError } from "./cli/exit-status.ts";
import { nearest, suggestion } from "./cli/suggest.ts";

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
  man: async () => (await import("./man.ts")).default,
  completion: async () => (await import("./completion.ts")).default,
};

/** Loads the definition of a command; undefined where there is no such command. */
export async function loadCommand(name: string): Promise<Command | undefined> {
  return Object.hasOwn(COMMANDS, name) ? ((await COMMANDS[name]!()) as Command) : undefined;
}

/** What other programs call the commands. */
const ALSO: Record<string, string> = {
  ls: "list",
  locks: "list",
  top: "list --watch",
  watch: "list --watch",
  ps: "status",
  show: "status",
  info: "status",
  who: "status",
  kill: "stop",
  end: "stop",
  unlock: "stop",
  release: "stop",
  free: "stop",
  rm: "stop",
  lock: "run",
  exec: "run",
  start: "run",
  acquire: "run",
  try: "run",
  keep: "hold",
  check: "doctor",
  test: "doctor",
  log: "history",
  logs: "history",
  file: "path",
  where: "path",
  manual: "man",
  version: "--version",
};

/** The error for a name that is no command, with the name that was probably meant. */
export function unknownCommand(name: string, rest: readonly string[] = []): UsageError {
  if (name === "") return new UsageError("missing COMMAND");
  if (name.startsWith("-")) {
    const near = suggestion(name, ["--help", "--version"]);
    const hint = near || " (options go after the command, as in exclusive run --wait)";
    return new UsageError(`unknown option '${printable(name)}'${hint}`);
  }
  if (
    rest.includes("--") &&
    !Object.hasOwn(ALSO, name) &&
    nearest(name, Object.keys(COMMANDS)) === undefined
  ) {
    const line = [name, ...rest].map(shellWord).join(" ");
    return new UsageError(
      `unknown command '${printable(name)}' (did you mean exclusive run ${printable(line)}?)`,
    );
  }
  const also = Object.hasOwn(ALSO, name) ? ` (did you mean ${ALSO[name]}?)` : undefined;
  const meant = also ?? suggestion(name, [...Object.keys(COMMANDS), "help"]);
  return new UsageError(`unknown command '${printable(name)}'${meant}`);
}

/** Loads every definition, in the order of the overview. */
export function loadCommands(): Promise<Command[]> {
  return Promise.all(Object.values(COMMANDS).map((load) => load() as Promise<Command>));
}
