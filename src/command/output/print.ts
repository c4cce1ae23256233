/** Output helpers: data to stdout, diagnostics to stderr. */
import { systemError } from "../../os/errors.ts";
import { write as writeTo } from "../../os/files.ts";
import { SIG } from "../../os/signals.ts";

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

/** One line of JSON that is safe on a terminal: C1 controls and format characters are escaped too. */
export function jsonLine(value: unknown): string {
  return JSON.stringify(value).replace(/[\x7f-\x9f\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from({ length: character.length }, (_, i) => {
      return `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`;
    }).join(""),
  );
}
