/** --hold-for: the lock is kept at least so long after it was taken, however soon the command ends. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { alive } from "../support/proc.ts";
import { command, exclusive, start } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

/** The pid of the process that keeps the lock. */
async function keeperOf(dir: TempDir): Promise<number> {
  const { stdout } = await exclusive(["status", "--json", "t"], { dir });
  const { holder } = JSON.parse(stdout);
  expect(holder.until).toMatch(/^\d{4}-.*Z$/);
  return holder.commandPid;
}

const isFree = async (dir: TempDir) => (await exclusive(["status", "-q", "t"], { dir })).status === 3;

test("run ends with the command, with its status, and the lock stays until the time is over: then it is free", async () => {
  using dir = new TempDir();
  const began = performance.now();
  const ran = await exclusive(["run", "--hold-for", "3s", "t", "--", "sh", "-c", "exit 7"], { dir });
  expect(ran).toMatchObject({ status: 7, stderr: "" });
  expect(performance.now() - began).toBeLessThan(2500);
  const pid = await keeperOf(dir);
  const again = await exclusive(["run", "t", "--", "echo", "no"], { dir });
  expect(again).toMatchObject({ status: 75, stdout: "" });
  expect(again.stderr).toMatch(
    new RegExp(`held by pid ${pid} for \\d+s: kept until \\d{4}-\\d\\d-\\d\\d [\\d:]{8}\\n$`),
  );
  expect((await exclusive(["list"], { dir })).stdout).toMatch(/ kept until \d{4}-/);
  await until(() => isFree(dir), "the lock to be free");
  expect(performance.now() - began).toBeGreaterThan(2900);
  expect(await exclusive(["run", "t", "--", "true"], { dir })).toMatchObject({ status: 0 });
  expect(dir.list()).toEqual([]);
});

test("the keeper has less than 2 MiB, a session of its own, and no descriptor but the lock's", async () => {
  using dir = new TempDir();
  await exclusive(["run", "--hold-for", "600s", "t", "--", "true"], { dir });
  const pid = await keeperOf(dir);
  try {
    await until(() => readFileSync(`/proc/${pid}/comm`, "utf8") === "sleep\n", "the keeper to be sleep");
    const memory = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    expect(Number(memory.match(/^Pss:\s+(\d+)/m)![1])).toBeLessThan(2048);
    const { stdout } = await command([
      "sh",
      "-c",
      `ps -o sid= -p ${pid}; ls -l /proc/${pid}/fd | sed -n 's/.* -> //p' | sort`,
    ]);
    const [session, ...files] = stdout.trim().split("\n");
    expect(Number(session)).toBe(pid);
    expect(files).toEqual(["/dev/null", "/dev/null", "/dev/null", dir.lockfile("t")]);
    expect(readFileSync(`/proc/${pid}/environ`, "utf8")).not.toContain("EXCLUSIVE");
  } finally {
    process.kill(pid, "SIGKILL");
  }
  await until(() => isFree(dir), "the lock to be free: its keeper was killed");
});

test("stop ends the keeper, and the lock is free", async () => {
  using dir = new TempDir();
  await exclusive(["run", "--hold-for", "600s", "t", "--", "true"], { dir });
  const pid = await keeperOf(dir);
  expect(await exclusive(["stop", "t"], { dir })).toMatchObject({ status: 0 });
  await until(() => !alive(pid), "the keeper to end");
  expect(await isFree(dir)).toBe(true);
  expect(await exclusive(["run", "t", "--", "echo", "yes"], { dir })).toMatchObject({ stdout: "yes\n" });
});

test("a command that is killed, or runs longer, changes nothing: the lock is kept for the rest, or freed at once", async () => {
  using dir = new TempDir();
  const killed = await exclusive(["run", "--hold-for", "600s", "t", "--", "sh", "-c", "kill -9 $$"], { dir });
  expect(killed).toMatchObject({ signal: "SIGKILL" });
  await keeperOf(dir);
  expect(await exclusive(["stop", "-q", "t"], { dir })).toMatchObject({ status: 0 });
  expect(await exclusive(["run", "--hold-for", "100ms", "t", "--", "sleep", "0.3"], { dir })).toMatchObject({
    status: 0,
  });
  expect(dir.list()).toEqual([]);
});

test("of 20 that start within the time one runs", async () => {
  using dir = new TempDir();
  const job = ["run", "--if-held", "skip", "--hold-for", "30s", "t", "--", "echo", "ran"];
  const all = Array.from({ length: 20 }, () => start(job, { dir }));
  const results = await Promise.all(all.map(({ result }) => result));
  expect(results.map(({ status }) => status)).toEqual(Array(20).fill(0));
  expect(results.map(({ stdout }) => stdout).join("")).toBe("ran\n");
  expect(await exclusive(["stop", "-q", "t"], { dir })).toMatchObject({ status: 0 });
});

test("with --exec it is wrong use", async () => {
  for (const options of [["--exec"]]) {
    const ran = await command([binary, "run", ...options, "--hold-for", "1s", "t", "--", "echo", "no"]);
    expect(ran).toMatchObject({ status: 64, stdout: "" });
  }
});

test("a time beyond all dates is without end", async () => {
  using dir = new TempDir();
  for (const args of [
    ["run", "--hold-for", "999999999999d", "t", "--", "true"],
    ["hold", "-q", "--for", "999999999999d", "t"],
  ]) {
    expect(await exclusive(args, { dir })).toMatchObject({ status: 0, stderr: "" });
    expect((await exclusive(["list"], { dir })).stdout).toContain("kept until stopped");
    expect(await exclusive(["stop", "-q", "t"], { dir })).toMatchObject({ status: 0 });
  }
});
