/** Durations: reading them, and writing them for people. */

/** A length of time: a number of milliseconds, or text with units such as `"500ms"`, `"30s"`, `"1h30m"`. */
export type Duration = number | string;

/** Text that is not a duration, or one out of range. The class tells it from a `RangeError` of the engine, which is a bug. */
export class WrongDuration extends RangeError {}

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const PART = /(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|d)/gy;

/**
 * Returns the milliseconds of a duration in a program, where 30 is milliseconds and `"30"` would be seconds.
 * @throws {RangeError} for text without a unit, and as `milliseconds`
 */
export function withUnit(duration: Duration): number {
  const number = Number(duration);
  if (
    typeof duration === "string" &&
    duration.trim() !== "" &&
    number > 0 &&
    number < Number.POSITIVE_INFINITY
  )
    throw new WrongDuration(
      `a duration in text needs a unit: "${duration.trim()}s", not "${duration.trim()}"`,
    );
  return milliseconds(duration);
}

/**
 * Returns the milliseconds of a duration on a command line, where a number without a unit is seconds.
 * @throws {RangeError} when the text is not a duration, or the number is negative
 */
export function milliseconds(duration: Duration): number {
  if (typeof duration === "number") {
    if (duration >= 0) return duration;
    throw new WrongDuration(`a duration is a number of milliseconds, not negative: ${duration}`);
  }
  const text = duration.trim();
  if (/^(\d+(\.\d*)?|\.\d+)$/.test(text)) return Number(text) * 1000;
  let total = 0;
  let end = 0;
  for (const [part, number, unit] of text.matchAll(PART)) {
    total += Number(number) * UNITS[unit!]!;
    end += part.length;
  }
  if (end === 0 || end !== text.length) {
    throw new WrongDuration(`not a duration: '${duration}' (examples: 500ms, 30s, 5m, 1h30m)`);
  }
  return total;
}

/** Formats a duration for people: `4s`, `3m 10s`, `2h 5m`, `3d 4h`. */
export function humanDuration(milliseconds: number): string {
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

/** How a server's clock differs from ours, in milliseconds: `in step with this host`, `1.5s behind this host`. */
export const clockInWords = (ahead: number): string =>
  Math.abs(ahead) < 50
    ? "in step with this host"
    : `${limitInWords(Math.abs(ahead))} ${ahead > 0 ? "ahead of" : "behind"} this host`;

/** Formats a time for people, as `humanDuration`, where a part of a second counts: `400ms`, `1.5s`. */
export function limitInWords(milliseconds: number): string {
  if (milliseconds < 999.5) return `${Math.max(0, Math.round(milliseconds))}ms`;
  if (milliseconds < 9950) return `${Number((milliseconds / 1000).toFixed(1))}s`;
  return humanDuration(Math.round(milliseconds / 1000) * 1000);
}
