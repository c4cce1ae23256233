/** Errors of the operating system: their codes, their texts, and the one exception made of them. */
import { LockFileError, printable } from "../errors.ts";
import { type Code, libc, textAt } from "./libc.ts";

/** The code of what `node:fs` has thrown. A path with a NUL never reaches the system: no file can have it. */
export function codeOf(error: unknown): Code {
  const { code } = error as NodeJS.ErrnoException;
  if (typeof code !== "string") throw error;
  return code === "ERR_INVALID_ARG_VALUE" ? "ENAMETOOLONG" : code;
}

let strerror: ReturnType<typeof libc>[string] | undefined;

/** The system's text for a code, strerror(3). */
export function errorText(code: Code): string {
  // Loaded only where something has failed.
  const { errno } = (require("node:os") as typeof import("node:os")).constants;
  const number = (errno as Record<string, number>)[code] ?? Number(code);
  if (Number.isNaN(number)) return code;
  strerror ??= libc({ strerror: { args: ["i32"], returns: "ptr" } }).strerror;
  return textAt(strerror(number));
}

/** What cannot be done where this system call fails. */
const DOING: Record<string, string> = {
  open: "open",
  fstat: "look at",
  lstat: "look at",
  flock: "lock",
  opendir: "list",
  write: "write to",
};

/** The error for a failed system call on a file: `cannot open /f: Permission denied (hint)`. */
export function systemError(
  operation: string,
  path: string,
  code: Code,
  { hint, doing = DOING[operation] ?? operation }: { hint?: string | undefined; doing?: string } = {},
): LockFileError {
  const reason = errorText(code) + (hint === undefined ? "" : ` (${hint})`);
  return new LockFileError(`cannot ${doing} ${printable(path)}: ${reason}`, code, operation, path);
}
