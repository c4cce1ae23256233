/** `exclusive status`: is a lock held, and by whom? */
import { printable } from "../errors.ts";
import type { LockStatus } from "../store/store.ts";
import { EXIT } from "./cli/exit-status.ts";
import { lookUp, oneName, PLACE, storeOf } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";
import { byWhom, heldBy } from "./output/describe-holder.ts";
import { Describer } from "./output/describer.ts";
import { jsonLine, print } from "./output/print.ts";

export const OPTIONS = {
  json: { help: "print one JSON object" },
  ...PLACE,
} as const;

export async function status(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, OPTIONS, true);
  const found = await lookUp(storeOf(values), oneName(rest));
  print(values.json ? jsonLine(new Describer().describe(found)) : inWords(found));
  return { held: EXIT.OK, free: EXIT.FREE, unknown: EXIT.NO_PERMISSION }[found.state];
}

function inWords(lock: LockStatus): string {
  if (lock.state === "free") return `'${printable(lock.name)}' is free`;
  if (lock.state === "unknown")
    return `'${printable(lock.name)}': we may not read ${printable(lock.lockfile)}, so this cannot be known`;
  if (lock.slots) return lock.slots.map(inWords).join("\n");
  const others = (lock.others ?? []).map((holder) => `  shared with one held${byWhom(holder)}`);
  return [heldBy(lock.name, lock.holder), ...others].join("\n");
}
