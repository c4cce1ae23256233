/** Lengths of time. Serves all layers, so it imports nothing. */

/** A length of time: milliseconds as a number, or text such as `"500ms"`, `"30s"`, `"1h30m"`, `"30"` (seconds). */
export type Duration = number | string;

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const PART = /(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|d)/gy;

/**
 * The milliseconds of a duration.
 * @throws {RangeError} when the text is not a duration, or the number is negative
 */
export function milliseconds(duration: Duration): number {
  if (typeof duration === "number") {
    if (duration >= 0) return duration;
    throw new RangeError(`a duration is a number of milliseconds, not negative: ${duration}`);
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
    const shown = duration.replace(
      /[^ -~]/gu,
      (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
    );
    throw new RangeError(`not a duration: '${shown}' (say 500ms, 30s, 5m, 1h30m, or seconds: 30)`);
  }
  return total;
}
