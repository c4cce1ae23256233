/** `exclusive path`: the path of a lock's file, whether or not the file exists. */
import { defineCommand } from "citty";
import { defineArgs } from "./cli/define.ts";
import { EXIT } from "./cli/exit-status.ts";
import { DIR, lockLocation, NAME, openStoreOf, requireName } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";
import { describeDirectory } from "./output/lock-directory.ts";
import { jsonLine, print, printError } from "./output/print.ts";

const ARGS = defineArgs({
  ...NAME,
  json: { type: "boolean", description: "print one JSON object" },
  verbose: { type: "boolean", alias: "v", description: "report which directory that is, and why" },
  ...DIR,
});

export default defineCommand({
  meta: {
    name: "path",
    description: "print a lock file's path",
    examples: [["path backup", "whether or not the file exists"]],
    notes: ["Exit status: 0", "Environment: EXCLUSIVE_DIR, EXCLUSIVE_STORE"],
  },
  args: ARGS,
  run: ({ rawArgs }) => path(rawArgs),
});

function path(rawArgs: string[]): number {
  const { values, rest } = parseOptions(rawArgs, ARGS);
  const name = requireName(rest);
  const lockfile = openStoreOf(values).location(name);
  print(values.json ? jsonLine({ name, lockfile }) : lockfile);
  const where = lockLocation(values);
  if (values.verbose && "dir" in where) printError(`lock directory: ${describeDirectory(where.dir)}`);
  return EXIT.OK;
}
