/** Every command: what `--help`, completion and the entry know of it. Its code is loaded when it is called. */
import type { OptionTable } from "./options.ts";
import * as run from "./run.ts";

/** A command's module: its entry, which returns the exit status, and its options. */
interface Loaded {
  main: (args: string[]) => Promise<number>;
  options: OptionTable;
}

export interface CommandEntry {
  /** One line for the list of commands. */
  summary: string;
  /** What stands behind the options. */
  operands: string;
  load: () => Loaded | Promise<Loaded>;
}

export const COMMANDS: Record<string, CommandEntry> = {
  run: {
    summary: "run a command while holding a lock",
    operands: "NAME [--] COMMAND [ARG...]",
    load: () => ({ main: run.run, options: run.OPTIONS }), // not by import(): it is the one that must start fast
  },
  status: {
    summary: "is a lock held, and by whom?",
    operands: "NAME",
    load: async () => {
      const { status, OPTIONS } = await import("./status.ts");
      return { main: status, options: OPTIONS };
    },
  },
  path: {
    summary: "where a lock's file is, or would be",
    operands: "NAME",
    load: async () => {
      const { path, OPTIONS } = await import("./path.ts");
      return { main: path, options: OPTIONS };
    },
  },
  completion: {
    summary: "print a completion script for a shell",
    operands: "bash|zsh|fish",
    load: async () => {
      const { completion, OPTIONS } = await import("./completion.ts");
      return { main: completion, options: OPTIONS };
    },
  },
};
