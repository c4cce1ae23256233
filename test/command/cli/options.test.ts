import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { defineArgs } from "../../../src/command/cli/define.ts";
import { HelpRequest, UsageError } from "../../../src/command/cli/exit-status.ts";
import { parseOptions } from "../../../src/command/cli/options.ts";
import { nearest } from "../../../src/command/cli/suggest.ts";

const PERMUTING = defineArgs({
  name: { type: "positional" },
  wait: { type: "boolean", alias: "w" },
  quiet: { type: "boolean", alias: "q" },
  timeout: { type: "string", alias: "t", valueHint: "DURATION" },
  dir: { type: "string", valueHint: "DIR" },
  format: { type: "enum", alias: "f", options: ["text", "json"] },
});

/** The same for a command that wraps another one: its operands end in `[ARG...]`. */
const TABLE = defineArgs({
  ...PERMUTING,
  command: { type: "positional", valueHint: "[--] COMMAND [ARG...]" },
});

const parse = (line: string, permute = false) =>
  parseOptions(line === "" ? [] : line.split(" "), permute ? PERMUTING : TABLE);

describe("options end at the first operand, or at --", () => {
  test.each([
    ["", {}, []],
    ["-w job cmd -q", { wait: true }, ["job", "cmd", "-q"]],
    ["--wait -- -q", { wait: true }, ["-q"]],
    ["-wq job", { wait: true, quiet: true }, ["job"]],
    ["-t 5s job", { timeout: "5s" }, ["job"]],
    ["-t5s job", { timeout: "5s" }, ["job"]],
    ["-wt5s job", { wait: true, timeout: "5s" }, ["job"]],
    ["-qt 5s job", { quiet: true, timeout: "5s" }, ["job"]],
    ["--timeout=5s=x job", { timeout: "5s=x" }, ["job"]],
    ["--timeout= job", { timeout: "" }, ["job"]],
    ["-t -w job", { timeout: "-w" }, ["job"]],
    ["-t -- job", { timeout: "--" }, ["job"]],
    ["-t 1 -t 2 job", { timeout: "2" }, ["job"]],
    ["- -w", {}, ["-", "-w"]],
    ["job --help", {}, ["job", "--help"]],
    ["-fjson --format text job", { format: "text" }, ["job"]],
  ])("%p", (line, values, rest) => {
    expect(parse(line)).toEqual({ values, rest } as ReturnType<typeof parse>);
  });
});

test("where no command is wrapped they may follow the operands, up to --", () => {
  expect(parse("job -w --dir d more -- -q", true)).toEqual({
    values: { wait: true, dir: "d" },
    rest: ["job", "more", "-q"],
  });
});

test.each([
  ["--wat job", "unknown option --wat (did you mean --wait?)"],
  ["--nothing-like-it", "unknown option --nothing-like-it"],
  ["--constructor", "unknown option --constructor"],
  ["-y", "unknown option -y"],
  ["-x", "unknown option -x (without --shared the lock is exclusive)"],
  ["-wx", "unknown option -x (without --shared the lock is exclusive)"],
  ["--wait=1", "--wait takes no value"],
  ["--dir", "--dir needs a value: DIR"],
  ["-t", "-t needs a value: DURATION"],
  ["-f", "-f needs a value: text|json"],
  ["--format jsn", "--format takes text, json, not 'jsn' (did you mean json?)"],
  ["--format= job", "--format takes text, json, not ''"],
  ["--name job", "unknown option --name"],
])("%p is an error", (line, message) => {
  expect(() => parse(line)).toThrow(new UsageError(message));
});

test.each(["-h", "--help", "-wh", "-q --help"])("%p asks for help", (line) => {
  expect(() => parse(line)).toThrow(HelpRequest);
});

test("everything after the first operand is kept unchanged", () => {
  fc.assert(
    fc.property(fc.array(fc.string()), (tail) => {
      expect(parseOptions(["-w", "job", ...tail], TABLE).rest).toEqual(["job", ...tail]);
      expect(parseOptions(["-w", "--", ...tail], TABLE).rest).toEqual(tail);
    }),
  );
});

test("every command line is read or refused as wrong usage, and no operand is lost", () => {
  const word = fc.oneof(
    fc.constantFrom("-w", "-t", "--timeout", "--timeout=1", "-wq", "--", "job"),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(word), fc.boolean(), (args, permute) => {
      try {
        const { rest } = parseOptions(args, permute ? PERMUTING : TABLE);
        const kept = args.filter((arg) => rest.includes(arg));
        expect(rest.every((arg) => args.includes(arg))).toBe(true);
        expect(kept.length).toBeGreaterThanOrEqual(rest.length);
      } catch (error) {
        if (!(error instanceof UsageError || error instanceof HelpRequest)) throw error;
      }
    }),
  );
});

test("a near miss: one letter inserted, deleted, replaced or swapped", () => {
  const words = ["status", "stop", "list", "wait", "path"];
  for (const slip of ["stauts", "statu", "statuss", "sratus"]) expect(nearest(slip, words)).toBe("status");
  expect(nearest("lsit", words)).toBe("list");
  expect(nearest("elephant", words)).toBeUndefined();
  expect(nearest("", words)).toBeUndefined();
});
