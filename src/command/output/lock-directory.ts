/** What users are told about the directory of the lock files: which one, why, and what is held in the other one. */
import { printable } from "../../errors.ts";
import { defaultDirectory, otherDirectory } from "../../name.ts";
import { lstat } from "../../os/files.ts";
import { FileStore } from "../../store/file/file-store.ts";
import { describeHolder } from "./describe-holder.ts";
import { printError } from "./print.ts";

/** `/tmp (the default, as /var/lock is not a directory)`. @param given the directory that an option or URL names */
export function describeDirectory(given: string | undefined): string {
  const { path, reason } =
    given === undefined ? defaultDirectory() : { path: given, reason: "named by the command line or a URL" };
  return `${printable(path)} (${reason})`;
}

/**
 * Prints a line where a lock of this name is held in the other default directory, as by a program in another mount
 * namespace. It does not exclude the lock in this directory.
 */
export async function reportHeldElsewhere(directory: string, name: string): Promise<void> {
  const dir = otherDirectory(directory);
  if (dir === undefined) return;
  const other = new FileStore({ dir });
  if (typeof lstat(other.location(name)) === "string") return;
  const { state, holder } = await other.status(name);
  if (state !== "held") return;
  printError(
    `'${printable(name)}' is also held in ${dir}${describeHolder(holder)}: the two locks are independent`,
  );
}
