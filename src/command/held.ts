/**
 * `exclusive held`: does the calling process run under this lock?
 *
 * The proof is a descriptor: this process has inherited, through its parent, the open file that holds the lock, and the
 * kernel says so (`os/inherited-lock.ts`). No variable counts, which any process may set and which outlives the lock. A
 * command that was started with its descriptors closed has no proof.
 */
import { defineCommand } from "citty";
import { printable } from "../errors.ts";
import { inherited } from "../store/inheritance.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT } from "./cli/exit-status.ts";
import { LOCATION, NAME, openStoreOf, requireName } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";
import { printError } from "./output/print.ts";

/** Not 1, which a program exits with that fails. */
const NOT_HELD = 3;

const ARGS = defineArgs({ ...NAME, ...LOCATION });

export default defineCommand({
  meta: {
    name: "held",
    description: "check whether the caller runs under a lock",
    examples: [
      ["held backup || exit 1", "under the lock only"],
      ['held x || exec exclusive run x -- "$0" "$@"', "at the top of a script"],
    ],
    notes: ["Exit status: 0 yes, 3 no, 77 cannot tell", "Environment: EXCLUSIVE_DIR, EXCLUSIVE_STORE"],
  },
  args: ARGS,
  run: ({ rawArgs }) => held(rawArgs),
});

async function held(rawArgs: string[]): Promise<number> {
  const { values, rest } = parseOptions(rawArgs, ARGS);
  const name = requireName(rest);
  const how = await inherited(openStoreOf(values), name);
  if (how === "none") return NOT_HELD;
  if (how !== "unknown") return EXIT.OK;
  printError(`cannot tell whether this process runs under '${printable(name)}'`);
  return EXIT.NO_PERMISSION;
}
