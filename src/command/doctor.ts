/** `exclusive doctor`: check with real processes that locking works in a directory or in a store, or this program itself. */
import { defineCommand } from "citty";
import { checkPath, defaultDirectory } from "../name.ts";
import { absolute } from "../os/files.ts";
import { defineArgs } from "./cli/define.ts";
import { UsageError } from "./cli/exit-status.ts";
import { lockLocation, STORE } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";

const ARGS = defineArgs({
  dir: { type: "positional", required: false, description: "the directory to check" },
  self: { type: "boolean", description: "check this program itself: that it is whole and can run here" },
  json: { type: "boolean", description: "print one JSON object" },
  ...STORE,
});

export default defineCommand({
  meta: {
    name: "doctor",
    description: "check that locking works in a directory or store",
    examples: [
      ["doctor", "the default directory"],
      ["doctor /mnt/share", "another one"],
      ["doctor --store redis://cache:6379", "a store"],
      ["doctor --self", "this program itself"],
    ],
    notes: [
      "Exit status: 0 locks work, 3 maybe not between hosts, 74 they do not",
      "Environment: EXCLUSIVE_DIR",
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => doctor(rawArgs),
});

async function doctor(rawArgs: string[]): Promise<number> {
  const { values, rest } = parseOptions(rawArgs, ARGS);
  if (rest.length > 1) throw new UsageError("one directory at a time");
  const json = values.json === true;
  let dir = rest[0];
  if (values.self) {
    if (dir !== undefined || values.store !== undefined || values["store-file"] !== undefined)
      throw new UsageError("--self checks this program alone: no directory and no store");
    return (await import("./doctor/self.ts")).doctorSelf(json);
  }
  // EXCLUSIVE_STORE is not considered: without an option a directory is checked.
  if (values.store !== undefined || values["store-file"] !== undefined) {
    if (dir !== undefined) throw new UsageError("DIR cannot be combined with --store");
    const location = lockLocation(values);
    if ("url" in location) return (await import("./doctor/store.ts")).doctorStore(location.url, json);
    dir = location.dir;
  }
  const { doctorDirectory } = await import("./doctor/directory.ts");
  return dir === undefined
    ? doctorDirectory(defaultDirectory(), json)
    : doctorDirectory({ path: absolute(checkPath("DIR", dir)) }, json);
}
