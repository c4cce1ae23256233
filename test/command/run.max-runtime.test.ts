/** --max-runtime: a command that runs too long is stopped, and all that it has started. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { alive } from "../support/proc.ts";
import { exclusive, start } from "../support/process.ts";
import { hasRedis, startRedis } from "../support/servers.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

/** The events of a log file, without the fields that change. */
const eventsOf = (file: string) =>
  readFileSync(file, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { event: string; holdSeconds?: number; signal?: string });

test("a command that runs too long gets SIGTERM, and run exits with 124", async () => {
  using dir = new TempDir();
  const log = dir.file("log");
  const began = performance.now();
  const options = ["--max-runtime", "400ms", "--log-file", log];
  const ran = await exclusive(["run", ...options, "t", "--", "sleep", "600"], { dir });
  expect(ran).toMatchObject({ status: 124, stdout: "" });
  expect(ran.stderr).toBe("exclusive: 't' ran longer than 400ms: stopping it\n");
  expect(performance.now() - began).toBeLessThan(5000);
  const events = eventsOf(log);
  expect(events.map(({ event }) => event)).toEqual(["acquired", "overran", "released"]);
  expect(events[1]!.holdSeconds).toBeGreaterThanOrEqual(0.39);
  expect(events[2]).toMatchObject({ signal: "SIGTERM" });
  expect(dir.list()).toEqual(["log"]);
});

test("what ignores SIGTERM, in a session of its own too, gets SIGKILL after --kill-after, before the lock is free", async () => {
  using dir = new TempDir();
  const script = `trap '' TERM; setsid sleep 600 & echo $! >${dir.file("pid")}; setsid sh -c 'trap "" TERM; sleep 601' & wait`;
  const options = ["--max-runtime", "1s", "--kill-after", "300ms"];
  await using run = start(["run", ...options, "t", "--", "sh", "-c", script], { dir });
  await until(() => dir.list().includes("pid"), "the command to begin");
  expect(await run.result).toMatchObject({ status: 124 });
  const pid = Number(readFileSync(dir.file("pid"), "utf8"));
  expect(alive(pid)).toBe(false);
  expect(dir.list()).toEqual(["pid"]);
});

test("a command that ends in time keeps its status; one that exits 0 after SIGTERM has run too long all the same", async () => {
  using dir = new TempDir();
  const limited = (script: string) =>
    exclusive(["run", "--max-runtime", "1s", "t", "--", "sh", "-c", script], { dir });
  expect(await limited("exit 7")).toMatchObject({ status: 7, stderr: "" });
  expect(await limited("trap 'exit 0' TERM; sleep 600 & wait")).toMatchObject({ status: 124 });
});

test("under an inherited lock too", async () => {
  using dir = new TempDir();
  const inner = `"$0" run --inherit --max-runtime 300ms t -- sleep 600; echo $?`;
  const ran = await exclusive(["run", "t", "--", "sh", "-c", inner, binary], { dir });
  expect(ran).toMatchObject({ status: 0, stdout: "124\n" });
});

test("wrong use is an error before anything runs", async () => {
  using dir = new TempDir();
  for (const options of [
    ["--max-runtime", "1s", "--exec"],
    ["--kill-after", "1s"],
    ["--max-runtime", "x"],
  ]) {
    const ran = await exclusive(["run", ...options, "t", "--", "echo", "no"], { dir });
    expect(ran).toMatchObject({ status: 64, stdout: "" });
  }
});

test.if(hasRedis())("with a store: the lock stays until all of the command has ended", async () => {
  await using server = await startRedis();
  using dir = new TempDir();
  const env = { EXCLUSIVE_STORE: `redis://127.0.0.1:${server.port}` };
  const script = `trap '' TERM; echo $$ >${dir.file("pid")}; sleep 600 & sleep 601 & wait; wait`;
  const options = [
    "--ttl",
    "2s",
    "--max-runtime",
    "1s",
    "--kill-after",
    "300ms",
    "--log-file",
    dir.file("log"),
  ];
  const ran = await exclusive(["run", ...options, "t", "--", "sh", "-c", script], { env });
  expect(ran).toMatchObject({ status: 124 });
  expect(alive(Number(readFileSync(dir.file("pid"), "utf8")))).toBe(false);
  const events = eventsOf(dir.file("log")).map(({ event }) => event);
  expect(events.filter((event) => event !== "waiting")).toEqual(["acquired", "overran", "released"]);
  expect(await exclusive(["status", "-q", "t"], { env })).toMatchObject({ status: 3 });
});
