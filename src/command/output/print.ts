/** Output helpers: data to stdout, diagnostics to stderr. */
import { systemError } from "../../os/errors.ts";
import { write as writeTo } from "../../os/files.ts";
import { SIG } from "../../os/signals.ts";

export { jsonLine } from "../../errors.ts";

/** Writes a diagnostic line to stderr. */
export function printError(message: string): void {
  writeTo(2, `exclusive: ${message}\n`);
}

/**
 * Writes a line of data to stdout.
 * @throws {LockFileError} when it cannot be written
 */
export function print(line: string): void {
  write(`${line}\n`);
}

/**
 * Writes to stdout. When the reader has gone, exits with the status of a program that SIGPIPE killed.
 * @throws {LockFileError} when it cannot be written
 */
export function write(text: string): void {
  const failure = writeTo(1, text);
  if (failure === "EPIPE") process.exit(128 + SIG.PIPE);
  if (failure !== undefined) throw systemError("write", "stdout", failure);
}
