/** `exclusive status`: is a lock held, and by whom? */
import { printable } from "../errors.ts";
import { checkName } from "../name.ts";
import { FileStore } from "../store/file.ts";
import { EXIT, UsageError } from "./exit.ts";
import { parseOptions } from "./options.ts";
import { print } from "./say.ts";
import { heldBy } from "./show.ts";

export const OPTIONS = {
  json: { help: "print one JSON object" },
  dir: { value: "DIR", help: "directory of the lock files" },
} as const;

export async function status(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, OPTIONS, true);
  if (rest.length !== 1) throw new UsageError(rest.length === 0 ? "NAME is missing" : "one NAME at a time");
  const store = new FileStore({ dir: values.dir });
  const found = await store.status(checkName(rest[0]!));
  if (values.json) print(JSON.stringify(found));
  else if (found.state === "held") print(heldBy(found.name, found.holder));
  else print(`'${printable(found.name)}' is ${found.state === "free" ? "free" : "not for us to see"}`);
  return found.state === "held" ? EXIT.OK : EXIT.FREE;
}
