/** Reads a log file line by line, whatever its size. */
import { LockFileError, printable } from "../../errors.ts";
import type { LockEvent } from "../../events.ts";
import { errorText } from "../../os/errors.ts";
import { readChunks } from "../../os/read-chunks.ts";

/** An event as it was read: other programs, and later versions, may have written the file. */
export type ReadEvent = Pick<LockEvent, "time" | "event" | "name" | "pid"> & Record<string, unknown>;

/** A line that is longer was not written by this program. */
const LINE_MAX = 65_536;

/**
 * Passes each event of the file on, in its order.
 * @returns the number of lines that are no events: cut by a full disk, or of another program
 * @throws {LockFileError} when the file cannot be read
 */
export function readEvents(file: string, take: (event: ReadEvent) => void): number {
  const decoder = new TextDecoder();
  let broken = 0;
  let rest = "";
  const line = (text: string) => {
    if (text.trim() === "") return;
    const event = parseEvent(text);
    if (event === undefined) broken++;
    else take(event);
  };
  const failure = readChunks(file, (chunk) => {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop()!;
    if (rest.length > LINE_MAX) rest = rest.slice(0, LINE_MAX); // broken anyhow
    for (const text of lines) line(text);
  });
  if (failure !== undefined)
    throw new LockFileError(
      `cannot read the log file ${printable(file)}: ${errorText(failure)}`,
      failure,
      "read",
      file,
    );
  line(rest);
  return broken;
}

function parseEvent(line: string): ReadEvent | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { time, event, name, pid } = value as Record<string, unknown>;
  const texts = [time, event, name].every((field) => typeof field === "string");
  if (!texts || !Number.isSafeInteger(pid) || Number.isNaN(Date.parse(time as string))) return undefined;
  return value as ReadEvent;
}
