/** `exclusive path`: where a lock's file is, or would be. */
import { checkName } from "../name.ts";
import { FileStore } from "../store/file.ts";
import { EXIT, UsageError } from "./exit.ts";
import { parseOptions } from "./options.ts";
import { print } from "./say.ts";

export const OPTIONS = {
  json: { help: "print one JSON object" },
  dir: { value: "DIR", help: "directory of the lock files" },
} as const;

export async function path(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, OPTIONS, true);
  if (rest.length !== 1) throw new UsageError(rest.length === 0 ? "NAME is missing" : "one NAME at a time");
  const name = checkName(rest[0]!);
  const lockfile = new FileStore({ dir: values.dir }).place(name);
  print(values.json ? JSON.stringify({ name, lockfile }) : lockfile);
  return EXIT.OK;
}
