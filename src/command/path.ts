/** `exclusive path`: where a lock's file is, or would be. */
import { EXIT } from "./cli/exit-status.ts";
import { DIR, oneName, storeOf } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";
import { jsonLine, print } from "./output/print.ts";

export const OPTIONS = {
  json: { help: "print one JSON object" },
  ...DIR,
} as const;

export async function path(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, OPTIONS, true);
  const name = oneName(rest);
  const lockfile = storeOf(values).location(name);
  print(values.json ? jsonLine({ name, lockfile }) : lockfile);
  return EXIT.OK;
}
