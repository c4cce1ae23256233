/** The error for a command that cannot be started. */
import { isScarcity, printable } from "../../errors.ts";
import { errorText } from "../../os/errors.ts";
import type { Code } from "../../os/libc.ts";
import { canStartProcesses } from "../../os/spawn.ts";
import { CommandError, EXIT } from "../cli/exit-status.ts";
import type { EventLog } from "../output/event-log.ts";

/** @param failure the code of posix_spawnp(3) or execvp(3) */
export function cannotStart(command: string, failure: Code): CommandError {
  const ours = isScarcity(failure) || (failure === "EPERM" && !canStartProcesses());
  const status = ours ? EXIT.CANNOT_RUN : failure === "ENOENT" ? EXIT.NOT_FOUND : EXIT.NOT_EXECUTABLE;
  const shown = printable(command) || "an empty COMMAND (is a variable unset?)";
  // `run NAME 'tar cf x y'`, as for a shell.
  const hint = status === EXIT.NOT_FOUND && command.includes(" ") ? " (a shell line needs sh -c)" : "";
  return new CommandError(`cannot run ${shown}: ${errorText(failure)}${hint}`, status);
}

/** Records the run of a command that could not be started: it held the lock, and ended with a status. */
export function recordFailedStart(
  error: unknown,
  times: { waitSeconds: number; holdSeconds: number },
  log: EventLog,
): void {
  if (error instanceof CommandError)
    log.record("released", { ...times, exitCode: error.status, reason: error.message });
}
