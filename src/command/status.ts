/** `exclusive status`: a lock's state and its holder. */
import { defineCommand } from "citty";
import { printable } from "../errors.ts";
import { statusWithSlots } from "../store/look-up.ts";
import type { LockStatus } from "../store/store.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT } from "./cli/exit-status.ts";
import { LOCATION, NAME, openStoreOf, requireName } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";
import { describeHeld, describeHolder } from "./output/describe-holder.ts";
import { Describer } from "./output/describe-processes.ts";
import { jsonLine, print } from "./output/print.ts";

const ARGS = defineArgs({
  ...NAME,
  json: { type: "boolean", description: "print one JSON object" },
  ...LOCATION,
});

export default defineCommand({
  meta: {
    name: "status",
    description: "show a lock's state and holder",
    examples: [
      ["status backup", "exit 0: held, 3: free, 77: no permission to tell"],
      ["status --json backup | jq .holder", ""],
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => status(rawArgs),
});

async function status(rawArgs: string[]): Promise<number> {
  const { values, rest } = parseOptions(rawArgs, ARGS);
  const found = await statusWithSlots(openStoreOf(values), requireName(rest));
  print(values.json ? jsonLine(new Describer().describe(found)) : inWords(found));
  return { held: EXIT.OK, free: EXIT.FREE, unknown: EXIT.NO_PERMISSION }[found.state];
}

function inWords(lock: LockStatus): string {
  if (lock.state === "free") return `'${printable(lock.name)}' is free`;
  if (lock.state === "unknown")
    return `'${printable(lock.name)}': we may not read ${printable(lock.lockfile)}, so this cannot be known`;
  if (lock.slots) return lock.slots.map(inWords).join("\n");
  const others = (lock.others ?? []).map(
    (holder) => `  ${holder.left ? "and" : "shared with one held"}${describeHolder(holder)}`,
  );
  return [describeHeld(lock.name, lock.holder), ...others].join("\n");
}
