import { describe, expect, test } from "bun:test";
import { lockTable } from "../../../src/command/output/lock-table.ts";
import type { LockStatus } from "../../../src/store/store.ts";

const locks: LockStatus[] = [
  {
    name: "nightly-report-of-the-warehouse",
    state: "held",
    lockfile: "/l",
    waiters: 3,
    holder: {
      pid: 4194303,
      alive: true,
      user: "postgres",
      acquiredAt: new Date(Date.now() - 7_500_000),
      label: "started by the deploy of Tuesday",
      commandLine: "/usr/bin/python3 /opt/report/main.py --all --since yesterday --verbose",
    },
  },
  { name: "b", state: "held", lockfile: "/b", holder: { pid: 17, alive: true, commandLine: "sleep 9" } },
];

describe.each([200, 120, 80, 60, 40])("a table of %d columns", (width) => {
  const lines = lockTable(locks, { width }).trimEnd().split("\n");

  test("no line is wider, and STATE and PID are whole", () => {
    for (const line of lines) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(width);
    expect(lines[0]).toMatch(/ STATE +PID\b/);
    expect(lines[1]).toMatch(/ held +4194303\b/);
    expect(lines[2]).toMatch(/^b +held +17\b/);
  });

  test("a column goes as a whole: no heading is cut", () => {
    const headings = lines[0]!.split(/ {2,}/);
    const all = ["NAME", "STATE", "PID", "USER", "HELD FOR", "WAITING", "LABEL", "COMMAND"];
    expect(headings).toEqual(all.filter((heading) => headings.includes(heading)));
  });
});

test("without a width every cell is shown", () => {
  expect(lockTable(locks)).toContain("--since yesterday");
});

test("at 80 columns the command stays readable", () => {
  expect(lockTable(locks, { width: 80 })).toContain("/usr/bin/python3 ");
});
