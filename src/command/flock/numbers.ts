/** Numbers as C programs read them from their arguments: strtoimax(3), strtold(3), and util-linux's sizes. */

/** The text is not a number. */
export class NotANumber extends Error {}
/** The number is too large, or too close to zero. */
export class OutOfRange extends Error {}

const SPACE = "[ \\t\\n\\v\\f\\r]*";
const INTEGER = new RegExp(`^${SPACE}([+-]?\\d+)$`);
const FLOAT = new RegExp(
  `^${SPACE}([+-]?)(?:(inf(?:inity)?|nan(?:\\(\\w*\\))?)|0x([\\da-f]+\\.?[\\da-f]*|\\.[\\da-f]+)(?:p([+-]?\\d+))?|(\\d+\\.?\\d*|\\.\\d+)(?:e([+-]?\\d+))?)$`,
  "i",
);
const SIZE = new RegExp(`^${SPACE}\\+?(0x[\\da-f]+|\\d+)(?:\\.(\\d*))?(?:([KMGTPEZY])(iB|B)?)?$`, "i");

const INT32_MAX = 2 ** 31 - 1;

/** A whole decimal number that fits in 32 bits. */
export function int32(text: string): number {
  const match = INTEGER.exec(text);
  if (!match) throw new NotANumber();
  const value = Number(match[1]);
  if (value > INT32_MAX || value < -INT32_MAX - 1) throw new OutOfRange();
  return value;
}

/** Where a `long double` ends: a larger power of ten, or a smaller one, is out of range. */
const LONG_DOUBLE_EXPONENT = 4932;

/** A number as strtold(3) takes it, decimal or hexadecimal. What is beyond a `double` comes out as infinite or 0. */
export function float(text: string): number {
  const match = FLOAT.exec(text);
  if (!match) throw new NotANumber();
  const [, sign, special, hex, binaryExponent = "0", decimal, exponent = "0"] = match;
  const negative = sign === "-" ? -1 : 1;
  if (special) return /^n/i.test(special) ? Number.NaN : negative * Number.POSITIVE_INFINITY;
  if (hex !== undefined) {
    const [whole = "", fraction = ""] = hex.split(".");
    return negative * Number(`0x${whole}${fraction}`) * 2 ** (Number(binaryExponent) - 4 * fraction.length);
  }
  if (Math.abs(Number(exponent)) > LONG_DOUBLE_EXPONENT && /[1-9]/.test(decimal!)) throw new OutOfRange();
  return negative * Number(`${decimal}e${exponent}`);
}

/** A number of bytes: decimal, octal or hexadecimal, `K` and `KiB` for 2^10, `KB` for 10^3, and so on to `Y`. */
export function size(text: string): bigint {
  const match = SIZE.exec(text);
  if (!match) throw new NotANumber();
  const [, digits, fraction, unit, suffix] = match;
  // util-linux takes a fraction for a unit alone, and a point without digits for none.
  if (fraction !== undefined && !unit) throw new NotANumber();
  const octal = /^0\d+$/.test(digits!);
  if (octal && /[89]/.test(digits!)) throw new NotANumber();
  const base = suffix?.toLowerCase() === "b" ? 1000n : 1024n;
  const factor = unit ? base ** BigInt("KMGTPEZY".indexOf(unit.toUpperCase()) + 1) : 1n;
  const whole = BigInt(octal ? `0o${digits}` : digits!) * factor;
  const value = whole + (BigInt(fraction || "0") * factor) / 10n ** BigInt(fraction?.length ?? 0);
  if (value >= 1n << 64n) throw new OutOfRange();
  return value;
}
