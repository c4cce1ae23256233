import { expect, test } from "bun:test";
import { milliseconds, withUnit } from "../src/duration.ts";

test.each([
  [0, 0],
  [1.5, 1.5],
  [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
  ["0", 0],
  ["30", 30_000],
  ["1.5", 1500],
  [".5", 500],
  ["500ms", 500],
  ["30s", 30_000],
  ["5m", 300_000],
  ["1h30m", 5_400_000],
  ["2d", 172_800_000],
  ["1m0.5s", 60_500],
  [" 2s ", 2000],
])("%p is %p ms", (duration, expected) => {
  expect(milliseconds(duration)).toBe(expected);
});

test.each([
  -1,
  Number.NaN,
  "",
  " ",
  "-5",
  "+5",
  "5 s",
  "5x",
  "s",
  "1h30",
  "1e3",
  "0x10",
  "1,5s",
  "Infinity",
  "5S",
])("%p is refused", (duration) => {
  expect(() => milliseconds(duration)).toThrow(RangeError);
});

test.each(["2", "30", "1.5", " 2 "])("in a program %p is refused: 2 is milliseconds there", (text) => {
  expect(() => withUnit(text)).toThrow(
    `a duration in text needs a unit: "${text.trim()}s", not "${text.trim()}"`,
  );
});

test.each([
  [2, 2],
  [0, 0],
  ["0", 0],
  ["2s", 2000],
  ["2ms", 2],
] as const)("in a program %p is %p ms", (duration, expected) => {
  expect(withUnit(duration)).toBe(expected);
});
