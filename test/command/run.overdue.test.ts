/** --overdue: a holder that has run too long is no reason to be silent. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { exclusive, hold, start } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

test("skip is silent until the holder is overdue: then it is named, with 75 and an event", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "t");
  const skip = ["run", "--if-held", "skip", "--log-file", dir.file("log")];
  const early = await exclusive([...skip, "--overdue", "1h", "t", "--", "echo", "no"], { dir });
  expect(early).toMatchObject({ status: 0, stdout: "", stderr: "" });
  await Bun.sleep(50); // the holder is then older than the limit
  const late = await exclusive([...skip, "--overdue", "40ms", "t", "--", "echo", "no"], { dir });
  expect(late).toMatchObject({ status: 75, stdout: "" });
  expect(late.stderr).toMatch(
    new RegExp(
      `^exclusive: overdue \\(more than 40ms\\): 't' is held by pid ${holder.pid} for \\d+s: sleep 600\\n$`,
    ),
  );
  const events = readFileSync(dir.file("log"), "utf8").trim().split("\n");
  expect(events.map((line) => JSON.parse(line).event)).toEqual(["skipped", "overdue"]);
});

test("coalesce: who waits gives up, with 75, when the holder becomes overdue; its place in the queue is free", async () => {
  using dir = new TempDir();
  await using _holder = await hold(dir, "t");
  const options = ["--if-held", "coalesce", "--overdue", "2s"];
  await using first = start(["run", ...options, "t", "--", "echo", "no"], { dir });
  await until(() => dir.list().length === 2, "the first to wait");
  const second = await exclusive(["run", ...options, "t", "--", "echo", "no"], { dir });
  for (const one of [await first.result, second]) {
    expect(one).toMatchObject({ status: 75, stdout: "" });
    expect(one.stderr).toContain("overdue (more than 2s): 't' is held by pid");
  }
  await until(() => dir.list().length === 1, "the queue's file to be gone");
});

test("list marks the row of a holder that has run longer than its own limit, or than that of list", async () => {
  using dir = new TempDir();
  await using _own = await hold(dir, "own", "--if-held", "skip", "--overdue", "100ms");
  await using _other = await hold(dir, "other");
  const states = async (...options: string[]) => {
    const { stdout } = await exclusive(["list", ...options], { dir });
    return stdout
      .split("\n")
      .slice(1, -1)
      .map((line) => line.split(/ +/).slice(0, 2).join(" "));
  };
  await until(async () => (await states())[1] === "own overdue", "the mark");
  expect(await states()).toEqual(["other held", "own overdue"]);
  await until(async () => (await states("--overdue", "100ms"))[0] === "other overdue", "both marks");
  expect(await states("--overdue", "1h")).toEqual(["other held", "own held"]);
  const { stdout } = await exclusive(["list", "--json"], { dir });
  expect(JSON.parse(stdout).map(({ overdue }: { overdue?: boolean }) => overdue)).toEqual([undefined, true]);
});

test("without skip, coalesce or latest it is wrong use", async () => {
  using dir = new TempDir();
  for (const options of [[], ["--wait"], ["--if-held", "replace"]]) {
    const ran = await exclusive(["run", ...options, "--overdue", "1h", "t", "--", "echo", "no"], { dir });
    expect(ran).toMatchObject({ status: 64, stdout: "" });
  }
});
