/** The record of events: every line is whole, whatever happens to its writers and to the disk. */
import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { appendEvent, eventLine, newEvent, recordedName } from "../src/events.ts";
import { root } from "./support/paths.ts";
import { command, exclusive, hold, Process, startScript } from "./support/process.ts";
import { TempDir } from "./support/temp-dir.ts";
import { until } from "./support/until.ts";

test("the manual and the page on the history name every event, and no other", () => {
  const source = readFileSync(`${root}/src/events.ts`, "utf8");
  const fields = /interface EventFields \{\n(.*?)\n\}/s.exec(source)![1]!;
  const events = [...fields.matchAll(/^ {2}(\w+):/gm)].map(([, name]) => name!).sort();
  const page = readFileSync(`${root}/docs/history.md`, "utf8").split("| event  ")[1]!.split("\n\n")[0]!;
  const listed = [...page.matchAll(/^\| `(\w+)` /gm)].map(([, name]) => name!);
  expect(listed.toSorted()).toEqual(events);
  const manual = readFileSync(`${root}/docs/exclusive.1`, "utf8");
  const named = /^\.BR waiting (.*\n\.BR .*)$/m.exec(manual)![0].match(/[a-z]{4,}/g)!;
  expect(named.toSorted()).toEqual(events);
});

type Line = Record<string, unknown> & { event: string; name: string; waitSeconds: number };
const linesOf = (file: string): Line[] =>
  readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Line);

const sizeOf = (file: string) => statSync(file, { throwIfNoEntry: false })?.size ?? 0;

test("fifty processes append 10,000 events to one file, some are killed, and every line is whole", async () => {
  using dir = new TempDir();
  const log = dir.file("log");
  const writers = Array.from({ length: 50 }, (_, i) => {
    const noted = dir.file(`noted${i}`);
    const worker = `${root}/test/support/log-writer.worker.ts`;
    const argv = [process.execPath, worker, log, noted, `w${i}`, "200"];
    return { name: `w${i}`, noted, process: new Process(argv), victim: i % 3 === 0 };
  });
  try {
    for (const [i, { process, noted }] of writers.filter(({ victim }) => victim).entries()) {
      await until(() => sizeOf(noted) > 0 || !process.running, "a writer to write");
      await until(() => sizeOf(log) > i * 10_000 || !process.running, "the file to grow");
      process.kill("SIGKILL");
    }
    for (const { process, victim } of writers)
      if (!victim) expect(await process.result).toMatchObject({ status: 0, stderr: "" });
      else await process.result;
  } finally {
    for (const { process } of writers) process.kill("SIGKILL");
  }
  const lines = linesOf(log); // throws for a line that is not whole
  for (const { name, noted, victim } of writers) {
    const written = lines.filter((line) => line.name === name).map(({ waitSeconds }) => waitSeconds);
    expect(written).toEqual(Array.from({ length: written.length }, (_, i) => i));
    // A writer that was killed may have appended one more than it could note.
    const acknowledged = Number(readFileSync(noted, "utf8"));
    expect(victim ? written.length - acknowledged : written.length).toBeOneOf(victim ? [0, 1] : [200]);
  }
}, 120_000);

describe("a line", () => {
  const long = "\u0001\u{1f512}x".repeat(5000);
  test.each([
    ["acquired", { waitSeconds: 1, lockfile: long, token: long }],
    ["refused", { waitSeconds: 1, reason: long, holder: { pid: 1, host: long, label: long, user: long } }],
    ["lost", { holdSeconds: 1, reason: long, left: [1, 2] }],
  ] as const)("is shorter than 4 KiB and valid, however long its texts are: %s", (event, fields) => {
    const line = eventLine(newEvent(event, long, fields as never, long));
    expect(Buffer.byteLength(line)).toBeLessThan(4096);
    expect(line).toEndWith("}\n");
    expect(JSON.parse(line)).toMatchObject({ event, name: recordedName(long), pid: process.pid });
  });

  test("does not change a terminal that shows it", () => {
    expect(
      eventLine(newEvent("acquired", "\x1b]0;x\x07\x9b\u202e", { waitSeconds: 0, lockfile: "" })),
    ).toMatch(/^[\x20-\x7e]+\n$/);
  });

  test("begins on a line of its own after one that was cut", () => {
    using dir = new TempDir();
    const log = dir.file("log");
    writeFileSync(log, '{"time":"2026');
    for (const name of ["a", "b"])
      appendEvent(log, newEvent("acquired", name, { waitSeconds: 0, lockfile: "" }));
    const [cut, ...whole] = readFileSync(log, "utf8").trimEnd().split("\n");
    expect(cut).toBe('{"time":"2026');
    expect(whole.map((line) => JSON.parse(line).name)).toEqual(["a", "b"]);
  });
});

describe("a log file that cannot be written costs the record and one warning, not the job", () => {
  const run = (log: string, dir: TempDir) =>
    exclusive(["run", "--log-file", log, "t", "--", "sh", "-c", "echo out; exit 7"], { dir });
  const warned = (code: string) => ({
    status: 7,
    stdout: "out\n",
    stderr: expect.stringMatching(
      new RegExp(`^exclusive: cannot write to the log file .* \\(${code}\\): events are missing\\n$`),
    ),
  });

  test("a missing directory, a directory, a FIFO without a reader", async () => {
    using dir = new TempDir();
    expect(await run(dir.file("no/log"), dir)).toMatchObject(warned("ENOENT"));
    mkdirSync(dir.file("d"));
    expect(await run(dir.file("d"), dir)).toMatchObject(warned("EISDIR"));
    await command(["mkfifo", dir.file("fifo")]);
    expect(await run(dir.file("fifo"), dir)).toMatchObject(warned("ENXIO"));
  });

  test.if(process.platform === "linux")("a full disk", async () => {
    using dir = new TempDir();
    expect(await run("/dev/full", dir)).toMatchObject(warned("ENOSPC"));
  });

  test.if(process.getuid?.() !== 0)("no permission", async () => {
    using dir = new TempDir();
    writeFileSync(dir.file("log"), "");
    chmodSync(dir.file("log"), 0o400);
    expect(await run(dir.file("log"), dir)).toMatchObject(warned("EACCES"));
  });

  test("the limit of a file's size: no signal, neither to us nor to the command", async () => {
    using dir = new TempDir();
    const log = dir.file("log");
    writeFileSync(log, "\n".repeat(4000));
    const script = `ulimit -f 8; exec "$0" run --log-file "$1" t -- sh -c 'echo out; exit 7'`;
    const argv = ["sh", "-c", script, `${root}/dist/exclusive`, log];
    expect(await command(argv, { dir })).toMatchObject(warned("EFBIG"));
  });
});

const onSmallDisk = (script: string, dir: TempDir) =>
  command(
    ["unshare", "--mount", "sh", "-c", `mount -t tmpfs -o size=8k tmpfs "$1" || exit 99\n${script}`].concat(
      `${root}/dist/exclusive`,
      dir.path,
    ),
  );
const canMount =
  process.getuid?.() === 0 &&
  (await (async () => {
    using dir = new TempDir();
    return (await onSmallDisk("true", dir)).status === 0;
  })());

test.if(canMount)(
  "a disk that fills up and is freed again: no line is cut but where it was full",
  async () => {
    using dir = new TempDir();
    using locks = new TempDir();
    // 3900 bytes are there, so that one of the next lines crosses the end of the first page, and has no second one.
    const script = `export EXCLUSIVE_DIR=${locks.path} EXCLUSIVE_LOG_FILE=$1/log
    { head -c 3899 /dev/zero | tr '\\0' ' '; echo; } >$1/log; head -c 4096 /dev/zero >$1/other
    for i in 1 2; do "$0" run t true 2>>$1/../warned || exit 1; done
    rm $1/other
    for i in 3 4; do "$0" run t true || exit 1; done
    cat $1/log; exec "$0" history --json t`;
    const { status, stdout, stderr } = await onSmallDisk(script.replaceAll("$1/../warned", "/dev/null"), dir);
    expect(status).toBe(0);
    const lines = stdout.trim().split("\n");
    const [history] = lines.slice(-1).map((line) => JSON.parse(line));
    const events = lines.slice(0, -1).filter((line) => line.trim() !== "");
    const whole = events.filter((line) => line.endsWith("}"));
    expect(whole.length).toBeGreaterThanOrEqual(4);
    for (const line of whole) expect(JSON.parse(line)).toMatchObject({ name: "t" });
    expect(events.length - whole.length).toBe(1);
    expect(stderr).toContain("skipped 1 broken line in ");
    expect(history.runs.succeeded).toBeGreaterThanOrEqual(2);
  },
);

test("a run writes acquired and released, a refused one its holder, and stop what it stopped", async () => {
  using dir = new TempDir();
  const log = dir.file("log");
  const env = { EXCLUSIVE_LOG_FILE: log };
  await using holder = await hold({ dir, env }, "t", "--label", "it");
  expect(await exclusive(["run", "-q", "t", "true"], { dir, env })).toMatchObject({ status: 75, stderr: "" });
  await exclusive(["run", "--if-held=skip", "t", "true"], { dir, env });
  await exclusive(["run", "-qt", "0.5", "t", "true"], { dir, env });
  await exclusive(["stop", "t"], { dir, env });
  await holder.result;
  await exclusive(["run", "t", "/no/such/command"], { dir, env });
  await exclusive(["run", "--dir", dir.file("none"), "t", "true"], { dir, env });
  const lines = linesOf(log);
  const by = (event: string) => lines.filter((line) => line.event === event);
  expect(by("acquired")[0]).toMatchObject({
    name: "t",
    pid: holder.pid,
    label: "it",
    lockfile: dir.lockfile("t"),
  });
  expect(by("refused")).toMatchObject([
    { holder: { pid: holder.pid, label: "it" } },
    { waitSeconds: expect.any(Number) },
    { reason: expect.stringContaining("No such file or directory") },
  ]);
  expect(by("waiting").length).toBe(1); // also with --quiet
  expect(by("skipped").length).toBe(1);
  expect(by("stopped")).toMatchObject([{ stopped: expect.arrayContaining([holder.pid]), left: [] }]);
  expect(by("released")).toMatchObject([
    { pid: holder.pid, signal: "SIGTERM", commandPid: expect.any(Number), holdSeconds: expect.any(Number) },
    { exitCode: 127, reason: expect.stringContaining("/no/such/command") },
  ]);
});

test("the command inherits no descriptor of the log file, and a run without one makes none", async () => {
  using dir = new TempDir();
  const look = ["sh", "-c", "ls -l /proc/self/fd | sed 's/.* //'"];
  const { stdout } = await exclusive(["run", "--log-file", dir.file("log"), "t", ...look], { dir });
  expect(stdout).not.toContain(dir.file("log"));
  await exclusive(["run", "t", "true"], { dir });
  expect(dir.list()).toEqual(["log"]);
});

test("the library records what its locks do, at the exit of the program too", async () => {
  using dir = new TempDir();
  const log = dir.file("log");
  const code = `
    const lock = new Lock({ name: "mine", label: "L", logFile: ${JSON.stringify(log)} });
    { using _ = lock.acquireSync(); try { new Lock({ name: "mine", logFile: ${JSON.stringify(log)} }).acquireSync(); } catch {} }
    await lock.acquire(); await lock.release();
    new Lock({ name: "kept", logFile: ${JSON.stringify(log)} }).forever();`;
  expect(await startScript(code, dir).result).toMatchObject({ status: 0, stderr: "" });
  expect(linesOf(log).map(({ event, name }) => `${event} ${name}`)).toEqual([
    ...["acquired mine", "refused mine", "released mine", "acquired mine", "released mine"],
    ...["acquired kept", "released kept"],
  ]);
  expect(linesOf(log)[0]).toMatchObject({ label: "L", waitSeconds: expect.any(Number) });
  expect(linesOf(log)[2]).toMatchObject({ holdSeconds: expect.any(Number) });
});
