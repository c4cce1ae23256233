/** `exclusive help`: the overview, or the page of a command. */
import { defineCommand } from "citty";
import { isTerminal, windowSize } from "../os/terminal.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT } from "./cli/exit-status.ts";
import { overview, page } from "./cli/help.ts";
import { parseOptions } from "./cli/options.ts";
import { loadCommand, loadCommands, unknownCommand } from "./commands.ts";
import { print } from "./output/print.ts";

const ARGS = defineArgs({
  command: { type: "positional", required: false, description: "the command to describe" },
  all: { type: "boolean", alias: "a", description: "every option, the rare ones too" },
});

/** Longer lines are hard to read. */
const WIDTH_MAX = 80;

/** Hidden: the overview names `--help` instead. */
export default defineCommand({
  meta: {
    name: "help",
    description: "show this overview, or how a command is used",
    hidden: true,
    examples: [
      ["help run", "as run --help"],
      ["help --all run", "every option of it"],
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => help(rawArgs),
});

/** @throws {UsageError} when there is no such command */
async function help(rawArgs: string[]): Promise<number> {
  const { values, rest } = parseOptions(rawArgs, ARGS);
  const topic = rest[0] ?? "help";
  const width = isTerminal(1) ? Math.min(windowSize(1).columns, WIDTH_MAX) : undefined;
  if (topic === "help") {
    print(overview(await loadCommands(), width));
    return EXIT.OK;
  }
  const command = await loadCommand(topic);
  if (command === undefined) throw unknownCommand(topic);
  print(page(command, { all: values.all, width }));
  return EXIT.OK;
}
