/** What one sees in a terminal of 60, 80 and 120 columns: help, list, the live table, the waiting line, a refusal. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { binary } from "../support/paths.ts";
import { hold, type Process } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { TerminalProcess } from "../support/terminal.ts";
import { until } from "../support/until.ts";

const dir = new TempDir();
let holders: Process[] = [];

/** A lock with a short name, and one whose name, label and command are long. */
beforeAll(async () => {
  const label = "started by the deploy of Tuesday";
  holders = [await hold(dir, "backup"), await hold(dir, "nightly-report-of-the-warehouse", "--label", label)];
});
afterAll(async () => {
  for (const holder of holders) await holder[Symbol.asyncDispose]();
  dir[Symbol.dispose]();
});

/** The screen when a command has ended there. */
async function screenOf(args: string[], columns: number): Promise<string[]> {
  await using terminal = new TerminalProcess([binary, ...args], { dir, columns, env: { NO_COLOR: "1" } });
  await terminal.closed;
  return settled(terminal.screen);
}

/** Pids and times differ from run to run; columns are as wide as their widest cell. */
const settled = (lines: readonly string[]): string[] =>
  lines
    .filter((line) => line !== "")
    .map((line) =>
      line
        .replaceAll(/\bpid \d+/g, "pid N")
        .replaceAll(/( held +)\d+/g, "$1N")
        .replaceAll(/\bfor \d+[sm]( \d+s)?/g, "for T")
        .replaceAll(/\((\d+)s of/g, "(T of")
        .replaceAll(/(N +\w+ +)\d+[sm]( \d+s)?\b/g, "$1T")
        .replaceAll(/ {2,}/g, "  "),
    );

const LIST = {
  60: [
    "NAME  STATE  PID  COMMAND",
    "backup  held  N  sleep 600",
    "nightly-report-of-the-warehouse  held  N  sleep 600",
  ],
  80: [
    "NAME  STATE  PID  USER  HELD FOR  COMMAND",
    "backup  held  N  USER  T  sleep 600",
    "nightly-report-of-the-warehouse  held  N  USER  T  sleep 600",
  ],
  120: [
    "NAME  STATE  PID  USER  HELD FOR  LABEL  COMMAND",
    "backup  held  N  USER  T  sleep 600",
    "nightly-report-of-the-warehouse  held  N  USER  T  started by the deploy of Tuesday  sleep 600",
  ],
} as const;
const user = process.env.USER ?? Bun.spawnSync(["id", "-un"]).stdout.toString().trim();

const WAITING = {
  60: "waiting for 'backup' (T of 2m), held by pid N",
  80: "exclusive: waiting for 'backup' (T of 2m), held by pid N for T: sleep",
  120: "exclusive: waiting for 'backup' (T of 2m), held by pid N for T: sleep 600",
} as const;

describe.each([60, 80, 120] as const)("%d columns", (columns) => {
  test("help: no line is wider, and the usage is first", async () => {
    for (const args of [[], ["run", "--help"], ["list", "--help"], ["stop", "--help"]]) {
      await using terminal = new TerminalProcess([binary, ...args], { columns });
      await terminal.closed;
      const lines = terminal.screen;
      expect(lines[0]).toStartWith("Usage: exclusive ");
      expect(lines.filter((line) => Bun.stringWidth(line) > columns)).toEqual([]);
      expect(lines.join("\n")).toContain("\nEnvironment: ");
    }
  });

  test("list: a column goes as a whole; name, state and pid stay", async () => {
    const shown = await screenOf(["list"], columns);
    expect(shown).toEqual(LIST[columns].map((line) => line.replace("USER  T", `${user}  T`)));
  });

  test("list --watch: the same table, and q leaves it with the terminal as it was", async () => {
    const env = { NO_COLOR: "1", PS1: "$ " };
    await using shell = new TerminalProcess(["sh"], { dir, columns, env });
    await shell.shows("$ ");
    shell.type("stty -g; exec 3>&1\n");
    const before = await shell.shows(/[0-9a-f]+(:[0-9a-f]+){10,}/);
    shell.type(`clear; "${binary}" list --watch\n`);
    const table = () =>
      settled(shell.screen.slice(shell.screen.findLastIndex((line) => line.startsWith("NAME "))));
    const whole = LIST[columns].map((line) => line.replace("USER  T", `${user}  T`));
    await until(
      () => Bun.deepEquals(table(), whole),
      "the table",
      () => table().join("\n"),
    ); // drawn in parts
    shell.type("q");
    await shell.shows("\x1b[?25h");
    await shell.shows("$ ");
    shell.type('echo "status $?"; stty -g\n');
    await shell.shows("status 0");
    expect(await shell.shows(/[0-9a-f]+(:[0-9a-f]+){10,}/)).toBe(before);
  });

  test("the waiting line: the holder is on it from the start, and it never wraps", async () => {
    await using wait = new TerminalProcess([binary, "run", "-t", "2m", "backup", "true"], { dir, columns });
    await wait.shows(/\x1b\[K[\s\S]*pid \d+[\s\S]*\x1b\[K[\s\S]*pid \d+/); // drawn twice
    const drawn = wait.output.split("\r\x1b[K").filter((line) => line !== "");
    for (const line of drawn.slice(0, -1)) {
      expect(Bun.stringWidth(line)).toBeLessThan(columns);
      expect(settled([line])[0]).toStartWith(WAITING[columns]);
    }
    const long = "nightly-report-of-the-warehouse";
    await using other = new TerminalProcess([binary, "run", "-t", "2m", long, "true"], { dir, columns });
    const line = await other.shows(/waiting for .*held by pid \d+\b/);
    expect(line).toMatch(/'nightly.*' \(\ds of 2m\), held by pid \d+$/);
  });

  test("a refusal: one sentence, which names the holder and its command", async () => {
    expect(await screenOf(["run", "backup", "true"], columns)).toEqual([
      "exclusive: 'backup' is held by pid N for T: sleep 600",
    ]);
    const [skipped] = (await screenOf(["run", "-v", "--if-held", "skip", "backup", "true"], columns)).slice(
      -1,
    );
    expect(skipped).toBe("exclusive: skipped: 'backup' has been running for T (pid N: sleep 600)");
  });
});

test("a dumb terminal: no escape sequence, the table fits, and the wait is told in one line", async () => {
  const options = { dir, columns: 60, env: { TERM: "dumb" } };
  for (const args of [["list"], ["--help"]]) {
    await using shown = new TerminalProcess([binary, ...args], options);
    await shown.closed;
    expect(shown.output).not.toContain("\x1b");
    for (const line of shown.screen) expect(Bun.stringWidth(line)).toBeLessThanOrEqual(60);
  }
  await using wait = new TerminalProcess([binary, "run", "-t", "2s", "backup", "true"], options);
  expect(await wait.result).toMatchObject({ status: 75 });
  await wait.shows("timed out after 2s");
  expect(wait.output).not.toContain("\x1b");
  expect(wait.output.match(/waiting for 'backup'/g)).toHaveLength(1);
});

test("no locks: list and list --watch name the directory", async () => {
  using empty = new TempDir();
  await using list = new TerminalProcess([binary, "list"], { dir: empty });
  await list.shows(`exclusive: no locks in ${empty.path}`);
  await using watch = new TerminalProcess([binary, "list", "--watch"], { dir: empty });
  await watch.shows(`no locks in ${empty.path}`);
  watch.type("q");
  expect(await watch.result).toMatchObject({ status: 0 });
});

test("list --overdue marks what is held for longer, in red where there are colors", async () => {
  await using list = new TerminalProcess([binary, "list", "--overdue", "1ms"], { dir, columns: 60 });
  await list.shows("\x1b[31moverdue\x1b[0m");
  await using none = new TerminalProcess([binary, "list", "--overdue", "1d"], { dir });
  await none.result;
  await none.shows("sleep 600");
  expect(none.output).not.toContain("overdue");
});
