/** The error for a command that cannot be started. */
import { printable } from "../../errors.ts";
import { errorName, errorText } from "../../os/libc.ts";
import { CommandError, EXIT } from "../cli/exit-status.ts";

/** @param errno of posix_spawnp(3) or execvp(3) */
export function cannotStart(command: string, errno: number): CommandError {
  const status = errorName(errno) === "ENOENT" ? EXIT.NOT_FOUND : EXIT.NOT_EXECUTABLE;
  return new CommandError(`cannot run ${printable(command)}: ${errorText(errno)}`, status);
}
