/** The file that events are appended to. */
import { defineArgs } from "./define.ts";
import { UsageError } from "./exit-status.ts";

export const LOG_FILE = defineArgs({
  "log-file": {
    type: "string",
    valueHint: "FILE",
    description: "append events to FILE as JSON lines",
    details:
      "Each event is one object a line, in one write, so many runs can share the file. A file that cannot be written costs the record and one warning, never the command. Default: `EXCLUSIVE_LOG_FILE`. `exclusive history` reads it.",
  },
});

/**
 * The log file that the command line or the environment names.
 * @throws {UsageError} for an empty name
 */
export function logFileOf(values: { "log-file"?: string }): string | undefined {
  const file = values["log-file"];
  if (file === "") throw new UsageError("--log-file needs the path of a file, not an empty text");
  return file ?? (process.env.EXCLUSIVE_LOG_FILE || undefined);
}
