/** A lock that is kept without a command: `run --hold-for`, and `exclusive hold`. */
import { printable } from "../../errors.ts";
import type { FileLease } from "../../store/file/file-lease.ts";
import { untilInWords } from "../output/describe-holder.ts";
import { printError } from "../output/print.ts";

/**
 * Leaves the lock to a keeper: a process of less than a mebibyte, in a session of its own, that ends after this time. The
 * kernel frees the lock with it, whatever ends it.
 * @param milliseconds undefined: until it is stopped
 * @returns until when, in words; undefined where the keeper cannot be started: that is reported, and the lock is still ours
 */
export function leaveToKeeper(
  lease: FileLease,
  name: string,
  milliseconds: number | undefined,
): string | undefined {
  const { until, failure } = lease.leaveToKeeper(milliseconds);
  if (failure === undefined) return untilInWords(until);
  printError(`cannot start a process to keep '${printable(name)}' (${failure}): lock released`);
  return undefined;
}
