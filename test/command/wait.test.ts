import { expect, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { command, exclusive, hold, start } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { KEY, TerminalProcess } from "../support/terminal.ts";
import { until } from "../support/until.ts";

const wait = (dir: TempDir, ...args: string[]) => exclusive(["wait", ...args], { dir });

/** Waits until a process waits for this lock in the kernel. */
const waited = (dir: TempDir, name: string) =>
  until(async () => {
    const { stdout } = await exclusive(["status", "--json", name], { dir });
    return JSON.parse(stdout).waiters > 0;
  }, `a waiter for ${name}`);

test("a free lock: it returns at once, and no file is created", async () => {
  using dir = new TempDir();
  expect(await wait(dir, "job")).toEqual({ status: 0, signal: null, stdout: "", stderr: "" });
  expect(dir.list()).toEqual([]);
});

test.each(["exclusive", "shared"])(
  "waits until the %s holder is gone, and holds nothing then",
  async (mode) => {
    using dir = new TempDir();
    const holder = await hold(dir, "job", ...(mode === "shared" ? ["--shared"] : []));
    await using waiting = start(["wait", "--json", "job"], { dir });
    await waited(dir, "job");
    expect(waiting.running).toBe(true);
    holder.kill();
    const { status, stdout } = await waiting.result;
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      name: "job",
      state: "free",
      lockfile: dir.file("exclusive_job.lock"),
      waited: expect.any(Number),
    });
    expect(dir.list()).toEqual([]);
  },
);

test("--timeout: status 75 and the holder; the holder is not disturbed", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "job");
  for (const time of ["0", "50ms"]) {
    const late = await wait(dir, "--json", "-t", time, "job");
    expect(late).toMatchObject({ status: 75, stderr: expect.stringContaining(`held by pid ${holder.pid}`) });
    expect(JSON.parse(late.stdout)).toMatchObject({ state: "held", holder: { pid: holder.pid } });
  }
  expect(await wait(dir, "-q", "-t", "0", "job")).toEqual({
    status: 75,
    signal: null,
    stdout: "",
    stderr: "",
  });
  expect(holder.running).toBe(true);
});

test("a waiter gets the lock, although a `wait` is before it in the queue", async () => {
  using dir = new TempDir();
  const holder = await hold(dir, "job");
  await using waiting = start(["wait", "job"], { dir });
  await waited(dir, "job");
  await using next = start(["run", "--wait", "job", "--", "echo", "ran"], { dir });
  holder.kill();
  expect(await next.result).toMatchObject({ status: 0, stdout: "ran\n" });
  expect(await waiting.result).toMatchObject({ status: 0 });
});

test("a kept file, a file of --file, slots: free when no process holds any of them", async () => {
  using dir = new TempDir();
  await Bun.write(dir.file("data"), "");
  const cases = [
    { name: "kept", options: ["--keep"], asks: [] },
    { name: "named", options: ["--file", dir.file("data")], asks: ["--file", dir.file("data")] },
    { name: "slots", options: ["--slots", "2"], asks: [] },
  ];
  for (const { name, options, asks } of cases) {
    const holders = [await hold(dir, name, ...options)];
    if (name === "slots") holders.push(await hold(dir, name, ...options));
    const waiting = start(["wait", ...asks, name], { dir });
    for (const holder of holders) {
      expect((await wait(dir, "-t", "0", ...asks, name)).status).toBe(75);
      holder.kill();
      await holder.result;
    }
    expect(await waiting.result).toMatchObject({ status: 0 });
  }
  expect(dir.list()).toEqual(["data", "exclusive_kept.lock"]);
});

test("a killed holder's lock is free", async () => {
  using dir = new TempDir();
  await Bun.write(dir.file("exclusive_job.lock"), "1\n{}\n");
  expect(await wait(dir, "job")).toMatchObject({ status: 0 });
  expect(dir.list()).toEqual(["exclusive_job.lock"]);
});

test("on a terminal the wait is one line, and Ctrl-C erases it", async () => {
  using dir = new TempDir();
  await using _holder = await hold(dir, "job");
  await using waiting = new TerminalProcess([binary, "wait", "job"], { dir });
  await waiting.shows(/waiting for 'job'.*held by pid/);
  waiting.type(KEY.CTRL_C);
  expect(await waiting.result).toMatchObject({ signal: "SIGINT" });
  expect(waiting.screen.join("")).not.toContain("waiting");
});

test("wrong usage", async () => {
  using dir = new TempDir();
  expect(await wait(dir)).toMatchObject({ status: 64 });
  expect(await wait(dir, "-t", "soon", "job")).toMatchObject({
    status: 64,
    stderr: expect.stringContaining("not a duration: 'soon'"),
  });
});

const isRoot = process.getuid?.() === 0;

test.if(!isRoot || required("setpriv", "util-linux"))("a file without read permission: 77", async () => {
  using dir = new TempDir();
  chmodSync(dir.path, 0o755);
  await using _holder = await hold(dir, "held");
  writeFileSync(dir.file("exclusive_other.lock"), "");
  for (const file of dir.list()) chmodSync(dir.file(file), 0);
  const unprivileged = isRoot ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : [];
  for (const name of ["held", "other"]) {
    const { status, stderr } = await command([...unprivileged, binary, "wait", "--timeout", "30", name], {
      dir,
    });
    expect(status).toBe(77);
    expect(stderr).toContain(`no permission to read ${dir.file(`exclusive_${name}.lock`)}`);
    expect(stderr).not.toContain("--dir"); // another directory has other locks
  }
});
