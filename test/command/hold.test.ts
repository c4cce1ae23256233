/** exclusive hold: a lock without a command. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { exclusive } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

test("it ends at once and says until when; a refusal shows the label and the time; stop gives it back", async () => {
  using dir = new TempDir();
  const held = await exclusive(["hold", "--for", "2h", "--label", "no deploys", "t"], { dir });
  expect(held).toMatchObject({ status: 0, stderr: "" });
  expect(held.stdout).toMatch(/^'t' is kept until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n$/);
  for (const args of [
    ["run", "t", "--", "echo", "no"],
    ["hold", "t"],
  ]) {
    const refused = await exclusive(args, { dir });
    expect(refused).toMatchObject({ status: 75, stdout: "" });
    expect(refused.stderr).toMatch(
      /^exclusive: 't' is held by pid \d+ for \d+s \(no deploys\): kept until \d{4}-/,
    );
  }
  expect((await exclusive(["status", "t"], { dir })).stdout).toMatch(/no deploys.*kept until/);
  expect(await exclusive(["stop", "t"], { dir })).toMatchObject({ status: 0 });
  expect(await exclusive(["run", "t", "--", "echo", "yes"], { dir })).toMatchObject({ stdout: "yes\n" });
});

test("--for: a waiter has the lock when the time is over", async () => {
  using dir = new TempDir();
  await exclusive(["hold", "-q", "--for", "1s", "t"], { dir });
  expect(await exclusive(["run", "-q", "-t", "20s", "t", "--", "echo", "yes"], { dir })).toMatchObject({
    status: 0,
    stdout: "yes\n",
  });
});

test("without --for it is kept until it is stopped; --json is the lock's status, and the log file has it", async () => {
  using dir = new TempDir();
  const { stdout } = await exclusive(["hold", "--json", "--log-file", dir.file("log"), "t"], { dir });
  expect(JSON.parse(stdout)).toMatchObject({ name: "t", state: "held", holder: { until: "stopped" } });
  expect((await exclusive(["list"], { dir })).stdout).toContain("kept until stopped");
  expect(JSON.parse(readFileSync(dir.file("log"), "utf8"))).toMatchObject({ event: "acquired", name: "t" });
  expect(await exclusive(["stop", "-q", "t"], { dir })).toMatchObject({ status: 0 });
  await until(
    async () => (await exclusive(["status", "-q", "t"], { dir })).status === 3,
    "the lock to be free",
  );
});

test("for no time at all it is wrong use; a store out of reach is 69", async () => {
  using dir = new TempDir();
  expect(await exclusive(["hold", "--for", "0", "t"], { dir })).toMatchObject({ status: 64 });
  expect(await exclusive(["hold", "--store", "redis://127.0.0.1:1", "t"])).toMatchObject({
    status: 69,
    stderr: expect.stringContaining("connection refused"),
  });
});
