/** What commands say: data on stdout, talk on stderr. */
import { systemError } from "../../os/errors.ts";
import { write } from "../../os/files.ts";

/** A line for the user. */
export function complain(message: string): void {
  write(2, `exclusive: ${message}\n`);
}

/**
 * A line of data.
 * @throws {LockFileError} where it cannot be written
 */
export function print(line: string): void {
  emit(`${line}\n`);
}

/** Writes to stdout. Whoever reads it may leave: then this ends as a program does that SIGPIPE killed. */
export function emit(text: string): void {
  const failure = write(1, text);
  if (failure === "EPIPE") process.exit(128 + 13);
  if (failure !== undefined) throw systemError("write", "stdout", failure);
}

/** JSON on one line that a terminal can be shown too: JSON itself lets C1 control characters and the like pass. */
export function jsonLine(value: unknown): string {
  return JSON.stringify(value).replace(/[\x7f-\x9f\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from({ length: character.length }, (_, i) => {
      return `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`;
    }).join(""),
  );
}

/** What happens to a lock, as `--log-format json` names it. */
export type LockEvent = "waiting" | "acquired" | "refused" | "skipped" | "stopped" | "released" | "lost";

/** How much `run` and `wait` talk, and in what form. */
export interface Talk {
  quiet?: boolean | undefined;
  verbose?: boolean | undefined;
  json?: boolean | undefined;
}

/**
 * Tells what happens to a lock. As text, what is not as expected, and the rest with `--verbose`; as JSON, all of
 * it, one object a line: `time` (ISO 8601), `event`, `name`, and durations in seconds.
 */
export class Log {
  readonly #start = performance.now();

  constructor(
    readonly talk: Talk,
    readonly name: string,
  ) {}

  /** Seconds since this log began. */
  get elapsed(): number {
    return Math.round(performance.now() - this.#start) / 1000;
  }

  tell(event: LockEvent, details: Record<string, unknown>, text: () => string): void {
    const { quiet, verbose, json } = this.talk;
    if (quiet) return;
    if (json) {
      write(2, `${jsonLine({ time: new Date().toISOString(), event, name: this.name, ...details })}\n`);
    } else if (verbose || (event !== "acquired" && event !== "released")) {
      complain(text());
    }
  }
}

/** How long ago, or how long, for people: `4s`, `3m 10s`, `2h 5m`, `3d 4h`. */
export function spoken(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  const units: [number, string][] = [
    [86400, "d"],
    [3600, "h"],
    [60, "m"],
  ];
  for (const [i, [size, unit]] of units.entries()) {
    if (seconds < size) continue;
    const [smaller, smallerUnit] = units[i + 1] ?? [1, "s"];
    const rest = Math.floor((seconds % size) / smaller);
    return `${Math.floor(seconds / size)}${unit}${rest ? ` ${rest}${smallerUnit}` : ""}`;
  }
  return `${seconds}s`;
}
