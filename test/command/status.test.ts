import { expect, test } from "bun:test";
import { hostname } from "node:os";
import { commandOf, exclusive, hold } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";

const status = (dir: TempDir, ...args: string[]) => exclusive(["status", ...args], { dir });

test("a held lock: holder, duration, command; and status 0", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "backup", "--label", "nightly");
  const { stdout, status: code } = await status(dir, "backup");
  expect(stdout).toMatch(
    new RegExp(`^'backup' is held by pid ${holder.pid} for \\d+s \\(nightly\\): sleep 600\n$`),
  );
  expect(code).toBe(0);
});

test("a free lock: status 3, and no file is made; a missing directory has only free locks", async () => {
  using dir = new TempDir();
  expect(await status(dir, "backup")).toMatchObject({ status: 3, stdout: "'backup' is free\n" });
  expect(dir.list()).toEqual([]);
  expect(await status(dir, "--dir", dir.file("none"), "backup")).toMatchObject({ status: 3 });
});

test("--json: the record and what the OS reports about the process", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "backup", "--label", "nightly");
  const { stdout } = await status(dir, "--json", "backup");
  const pid = commandOf(holder);
  expect(JSON.parse(stdout)).toEqual({
    name: "backup",
    state: "held",
    lockfile: dir.file("exclusive_backup.lock"),
    waiters: 0,
    holder: {
      pid: holder.pid,
      alive: true,
      commandPid: pid,
      host: hostname(),
      acquiredAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      acquiredUptime: expect.any(Number),
      mode: "exclusive",
      label: "nightly",
      user: expect.any(String),
      commandLine: "sleep 600",
    },
  });
});

test("a lock with slots is held while any slot is", async () => {
  using dir = new TempDir();
  await using first = await hold(dir, "convert", "--slots", "3");
  await using second = await hold(dir, "convert", "--slots", "3");
  const told = await status(dir, "convert");
  expect(told.status).toBe(0);
  expect(told.stdout.split("\n").map((line) => line.replace(/ for .*/, ""))).toEqual([
    `'convert.1' is held by pid ${first.pid}`,
    `'convert.2' is held by pid ${second.pid}`,
    "",
  ]);
  const { slots, state } = JSON.parse((await status(dir, "--json", "convert")).stdout);
  expect(state).toBe("held");
  expect(slots).toMatchObject([{ name: "convert.1" }, { name: "convert.2" }]);
  expect(await status(dir, "convert.3")).toMatchObject({ status: 3 });
});

test("a lock named like a slot is not a slot", async () => {
  using dir = new TempDir();
  await using _other = await hold(dir, "release.2");
  expect(await status(dir, "release")).toMatchObject({ status: 3 });
});

test("readers are listed one by one", async () => {
  using dir = new TempDir();
  await using first = await hold(dir, "index", "--shared");
  await using second = await hold(dir, "index", "--shared");
  const { stdout } = await status(dir, "index");
  expect(stdout.split("\n")).toHaveLength(3);
  for (const { pid } of [first, second]) expect(stdout).toContain(`pid ${pid}`);
});

test("--file: the lock on an existing file, also through a link", async () => {
  using dir = new TempDir();
  await Bun.write(dir.file("data"), "untouched");
  (await import("node:fs")).symlinkSync("data", dir.file("link"));
  await using holder = await hold(dir, "x", "--file", dir.file("data"));
  for (const file of ["data", "link"]) {
    const told = await status(dir, "--file", dir.file(file), "x");
    expect(told).toMatchObject({ status: 0, stdout: expect.stringContaining(`pid ${holder.pid}`) });
  }
  expect(await Bun.file(dir.file("data")).text()).toBe("untouched");
});

test("control characters of a name, a label or a command line are never printed raw", async () => {
  using dir = new TempDir();
  const evil = "\x1b]0;owned\x07\u009b31m\u202e";
  await using _holder = await hold(dir, `a${evil}`, "--label", `b${evil}`);
  for (const args of [
    ["status", `a${evil}`],
    ["list"],
    ["list", "--json"],
    ["status", "--json", `a${evil}`],
  ]) {
    const { stdout, stderr } = await exclusive(args, { dir });
    expect(stdout).toContain(
      args.includes("--json") ? "\\u001b]0;owned\\u0007\\u009b31m\\u202e" : "\\x1b]0;owned",
    );
    expect(stdout + stderr).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/);
  }
});

test("--quiet: the exit status alone", async () => {
  using dir = new TempDir();
  const silent = { stdout: "", stderr: "" };
  const free = (await status(dir, "backup")).status;
  expect(await status(dir, "--quiet", "backup")).toMatchObject({ status: free, ...silent });
  await using _holder = await hold(dir, "backup");
  expect(await status(dir, "-q", "backup")).toMatchObject({ status: 0, ...silent });
});

test("wrong usage", async () => {
  using dir = new TempDir();
  expect(await status(dir)).toMatchObject({ status: 64, stderr: expect.stringContaining("missing NAME") });
  expect(await status(dir, "a", "b")).toMatchObject({ status: 64 });
  expect(await status(dir, "")).toMatchObject({
    status: 64,
    stderr: expect.stringContaining("must not be empty"),
  });
});
