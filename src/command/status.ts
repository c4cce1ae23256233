/** `exclusive status`: a lock's state and its holder. */
import { defineCommand } from "citty";
import { printable } from "../errors.ts";
import { FileStore } from "../store/file/file-store.ts";
import { withRemoved } from "../store/file/removed.ts";
import { statusWithSlots } from "../store/look-up.ts";
import type { LockStatus } from "../store/store.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT } from "./cli/exit-status.ts";
import { LOCATION, NAME, openStoreOf, requireName } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";
import { describeHeld, describeHolder } from "./output/describe-holder.ts";
import { Describer } from "./output/describe-processes.ts";
import { reportHeldElsewhere } from "./output/lock-directory.ts";
import { jsonLine, print } from "./output/print.ts";

const ARGS = defineArgs({
  ...NAME,
  json: { type: "boolean", description: "print one JSON object" },
  quiet: { type: "boolean", alias: "q", description: "print nothing: the exit status is the answer" },
  ...LOCATION,
});

export default defineCommand({
  meta: {
    name: "status",
    description: "show a lock's state and holder",
    examples: [
      ["status backup", "held or free, and its holder"],
      ["status --json backup | jq .holder", "for programs"],
    ],
    notes: [
      "Exit status: 0 held, 3 free, 77 no permission to tell",
      "Environment: EXCLUSIVE_DIR, EXCLUSIVE_STORE",
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => status(rawArgs),
});

async function status(rawArgs: string[]): Promise<number> {
  const { values, rest } = parseOptions(rawArgs, ARGS);
  const name = requireName(rest);
  const store = openStoreOf(values);
  const local = store instanceof FileStore && values.file === undefined;
  const found = await statusWithSlots(store, name);
  const lock = local ? withRemoved(found) : found;
  // A holder whose file was removed still runs, though it keeps no newcomer out until it has the path again.
  if (lock.state === "free" && lock.removed !== undefined) lock.state = "held";
  if (!values.quiet) {
    const shown = new Describer().describe(lock);
    print(values.json ? jsonLine(shown) : inWords(shown));
    if (local) await reportHeldElsewhere(store.dir, name);
  }
  return { held: EXIT.OK, free: EXIT.FREE, unknown: EXIT.NO_PERMISSION }[lock.state];
}

function inWords(lock: LockStatus): string {
  const removed = (lock.removed ?? []).map(
    (holder) => `held${describeHolder(holder)}, whose lock file was removed`,
  );
  const only = lock.holder === undefined && lock.slots === undefined ? removed.shift() : undefined;
  const first = only === undefined ? stateInWords(lock) : `'${printable(lock.name)}' is ${only}`;
  return [first, ...removed.map((line) => `  and ${line}`)].join("\n");
}

function stateInWords(lock: LockStatus): string {
  if (lock.state === "free") return `'${printable(lock.name)}' is free`;
  if (lock.state === "unknown")
    return `cannot tell whether '${printable(lock.name)}' is held: no permission to read ${printable(lock.lockfile)}`;
  if (lock.slots) return lock.slots.map(inWords).join("\n");
  const others = (lock.others ?? []).map(
    (holder) => `  ${holder.left ? "and" : "shared with one held"}${describeHolder(holder)}`,
  );
  return [describeHeld(lock.name, lock.holder), ...others].join("\n");
}
