import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { HelpRequest, UsageError } from "../../../src/command/cli/exit-status.ts";
import { nearest, parseOptions } from "../../../src/command/cli/options.ts";

const TABLE = {
  wait: { short: "w", help: "" },
  quiet: { short: "q", help: "" },
  timeout: { short: "t", value: "DURATION", help: "" },
  dir: { value: "DIR", help: "" },
} as const;

const parse = (line: string, permute = false) =>
  parseOptions(line === "" ? [] : line.split(" "), TABLE, permute);

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
  ])("%p", (line, values, rest) => {
    expect(parse(line)).toEqual({ values, rest } as ReturnType<typeof parse>);
  });
});

test("where nothing is wrapped they may stand behind the operands too, up to --", () => {
  expect(parse("job -w --dir d more -- -q", true)).toEqual({
    values: { wait: true, dir: "d" },
    rest: ["job", "more", "-q"],
  });
});

test.each([
  ["--wat job", "unknown option --wat (did you mean --wait?)"],
  ["--nothing-like-it", "unknown option --nothing-like-it"],
  ["--constructor", "unknown option --constructor"],
  ["-x", "unknown option -x"],
  ["-wx", "unknown option -x"],
  ["--wait=1", "--wait takes no value"],
  ["--dir", "--dir needs a value: DIR"],
  ["-t", "-t needs a value: DURATION"],
])("%p is an error", (line, message) => {
  expect(() => parse(line)).toThrow(new UsageError(message));
});

test.each(["-h", "--help", "-wh", "-q --help"])("%p asks for help", (line) => {
  expect(() => parse(line)).toThrow(HelpRequest);
});

test("whatever stands behind the first operand is kept as it is", () => {
  fc.assert(
    fc.property(fc.array(fc.string()), (tail) => {
      expect(parseOptions(["-w", "job", ...tail], TABLE).rest).toEqual(["job", ...tail]);
      expect(parseOptions(["-w", "--", ...tail], TABLE).rest).toEqual(tail);
    }),
  );
});

test("every command line is read or refused as wrong usage, and nothing gets lost", () => {
  const word = fc.oneof(
    fc.constantFrom("-w", "-t", "--timeout", "--timeout=1", "-wq", "--", "job"),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(word), fc.boolean(), (args, permute) => {
      try {
        const { rest } = parseOptions(args, TABLE, permute);
        const kept = args.filter((arg) => rest.includes(arg));
        expect(rest.every((arg) => args.includes(arg))).toBe(true);
        expect(kept.length).toBeGreaterThanOrEqual(rest.length);
      } catch (error) {
        if (!(error instanceof UsageError || error instanceof HelpRequest)) throw error;
      }
    }),
  );
});

test("the near miss is one slip away: a letter more, less, other or swapped", () => {
  const words = ["status", "stop", "list", "wait", "path"];
  for (const slip of ["stauts", "statu", "statuss", "sratus"]) expect(nearest(slip, words)).toBe("status");
  expect(nearest("lsit", words)).toBe("list");
  expect(nearest("elephant", words)).toBeUndefined();
  expect(nearest("", words)).toBeUndefined();
});
