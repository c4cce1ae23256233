/** Every command: what `--help`, completion and the entry know of it. Its code is loaded when it is called. */
import type { OptionTable } from "./cli/options.ts";

/** A command's module: its entry, which returns the exit status, and its options. */
interface Loaded {
  main: (args: string[]) => number | Promise<number>;
  options: OptionTable;
}

export interface CommandEntry {
  /** One line for the list of commands. */
  summary: string;
  /** What stands behind the options. */
  operands: string;
  /** Command lines to learn from, each with what it does. */
  examples: readonly (readonly [line: string, does: string])[];
  load: () => Promise<Loaded>;
}

export const COMMANDS: Record<string, CommandEntry> = {
  run: {
    summary: "run a command while holding a lock",
    operands: "NAME [--] COMMAND [ARG...]",
    examples: [
      ["run backup -- ./backup.sh", "refuse while it runs (exit 75)"],
      ["run --wait backup -- ./backup.sh", "wait for the other one to end"],
      ["run -t 10m backup -- ./backup.sh", "wait, but not for ever"],
    ],
    load: async () => {
      const { run, OPTIONS } = await import("./run.ts");
      return { main: run, options: OPTIONS };
    },
  },
  status: {
    summary: "is a lock held, and by whom?",
    operands: "NAME",
    examples: [
      ["status backup", "exit 0: held, 1: free, 77: not to be seen"],
      ["status --json backup | jq .holder", ""],
    ],
    load: async () => {
      const { status, OPTIONS } = await import("./status.ts");
      return { main: status, options: OPTIONS };
    },
  },
  list: {
    summary: "every lock, and who holds it",
    operands: "",
    examples: [
      ["list", "every lock of the directory"],
      ["list --watch", "as a live table, until Ctrl-C"],
      ["list --json | jq '.[].holder.pid'", "for programs"],
    ],
    load: async () => {
      const { list, OPTIONS } = await import("./list.ts");
      return { main: list, options: OPTIONS };
    },
  },
  wait: {
    summary: "wait until a lock is free",
    operands: "NAME",
    examples: [
      ["wait backup", "until nobody holds it"],
      ["wait -t 10m backup && ./report.sh", "exit 75: the time ran out"],
    ],
    load: async () => {
      const { wait, OPTIONS } = await import("./wait.ts");
      return { main: wait, options: OPTIONS };
    },
  },
  stop: {
    summary: "end the process that holds a lock",
    operands: "NAME",
    examples: [
      ["stop worker", "SIGTERM; SIGKILL after 10 s"],
      ["stop -s INT -g 1m worker", "SIGINT; SIGKILL after a minute"],
    ],
    load: async () => {
      const { stop, OPTIONS } = await import("./stop.ts");
      return { main: stop, options: OPTIONS };
    },
  },
  path: {
    summary: "where a lock's file is, or would be",
    operands: "NAME",
    examples: [["path backup", "where its lock file is"]],
    load: async () => {
      const { path, OPTIONS } = await import("./path.ts");
      return { main: path, options: OPTIONS };
    },
  },
  doctor: {
    summary: "do locks in a directory do what they must?",
    operands: "[DIR]",
    examples: [
      ["doctor", "the directory that is used when none is named"],
      ["doctor /mnt/share", "another one"],
    ],
    load: async () => {
      const { doctor, OPTIONS } = await import("./doctor.ts");
      return { main: doctor, options: OPTIONS };
    },
  },
  flock: {
    summary: "flock(1): run a command while holding a lock on a file",
    operands: "FILE COMMAND [ARG...]",
    examples: [
      ["flock -n job.lock ./job.sh", "as util-linux's flock(1), every option"],
      ["flock --help", ""],
    ],
    load: async () => {
      const { flockFront } = await import("./flock.ts");
      return { main: (args) => flockFront(args, "exclusive flock"), options: {} };
    },
  },
  completion: {
    summary: "print a completion script for a shell",
    operands: "bash|zsh|fish",
    examples: [
      ["completion bash > /etc/bash_completion.d/exclusive", ""],
      ["completion zsh > ~/.zfunc/_exclusive", ""],
      ["completion fish > ~/.config/fish/completions/exclusive.fish", ""],
    ],
    load: async () => {
      const { completion, OPTIONS } = await import("./completion.ts");
      return { main: completion, options: OPTIONS };
    },
  },
};
