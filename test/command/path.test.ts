import { expect, test } from "bun:test";
import { exclusive, hold } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";

const path = (dir: TempDir, ...args: string[]) => exclusive(["path", ...args], { dir });

test("the path of the file that a holder has", async () => {
  using dir = new TempDir();
  for (const name of ["job", "two words", "a/b", "ü", "x".repeat(400)]) {
    await using holder = await hold(dir, name);
    const { stdout, status } = await path(dir, name);
    expect(status).toBe(0);
    expect(dir.list().map((file) => dir.file(file))).toEqual([stdout.trimEnd()]);
    holder.kill();
    await holder.result;
  }
});

test("without a holder: nothing is made, and the directory need not exist", async () => {
  using dir = new TempDir();
  expect(await path(dir, "--dir", dir.file("none/"), "job")).toMatchObject({
    status: 0,
    stdout: `${dir.file("none")}/exclusive_job.lock\n`,
  });
  expect(dir.list()).toEqual([]);
});

test("--json; --dir has precedence over EXCLUSIVE_DIR", async () => {
  using dir = new TempDir();
  const { stdout } = await path(dir, "--json", "--dir", "/elsewhere", "two words");
  expect(JSON.parse(stdout)).toEqual({ name: "two words", lockfile: "/elsewhere/exclusive_two+words.lock" });
});

test("-v: the directory and the reason, on stderr", async () => {
  using dir = new TempDir();
  expect((await path(dir, "-v", "job")).stderr).toContain(`${dir.path} (EXCLUSIVE_DIR is set)`);
  expect((await path(dir, "-v", "--dir", "/elsewhere", "job")).stderr).toContain("/elsewhere (named by");
  const { stderr } = await exclusive(["path", "-v", "job"], { env: { EXCLUSIVE_DIR: undefined } });
  expect(stderr).toMatch(/lock directory: (\/var\/lock|\/tmp) \(the default/);
});

test("wrong usage", async () => {
  using dir = new TempDir();
  for (const args of [[], ["a", "b"], [""], ["--file", "x", "a"]])
    expect((await path(dir, ...args)).status).toBe(64);
});
