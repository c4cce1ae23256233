/** `exclusive doctor --self`, with the binary as it is, and changed. */
import { expect, test } from "bun:test";
import { chmodSync, copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { platform } from "node:os";
import { Elf } from "../../build/elf.ts";
import { binary, root } from "../support/paths.ts";
import { command, exclusive } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

const linux = platform() === "linux";
const LOCK_CHECKS = ["waits", "excludes", "freed by release", "freed by kill", "read-only file"];
const OWN_CHECKS = linux ? ["own code", "own failures", "transparent"] : [];

test("a binary as it was built: every check is well, and nothing is left behind", async () => {
  using dir = new TempDir();
  const { status, stdout, stderr } = await exclusive(["doctor", "--self", "--json"], { dir });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  const { ok, compiled, checks, program } = JSON.parse(stdout);
  expect({ ok, compiled }).toEqual({ ok: true, compiled: true });
  expect(`${program}\n`).toBe((await exclusive(["--version"])).stdout);
  expect(checks.map(({ check }: { check: string }) => check)).toEqual([...OWN_CHECKS, ...LOCK_CHECKS]);
  expect(dir.list()).toEqual([]);
});

test("as a script there is no binary to check; the rest is", async () => {
  using dir = new TempDir();
  const script = [process.execPath, `${root}/src/command/main.ts`, "doctor", "--self"];
  const { status, stdout } = await command(script, { dir });
  expect(status).toBe(0);
  const lines = stdout.split("\n").filter((line) => line.startsWith("yes"));
  expect(lines.map((line) => line.slice(5, line.indexOf(":")))).toEqual(LOCK_CHECKS);
});

test.if(linux && required("strip", "binutils"))(
  "a stripped binary is as good",
  async () => {
    using dir = new TempDir();
    using home = new TempDir();
    const stripped = home.file("stripped");
    copyFileSync(binary, stripped);
    expect(await command(["strip", stripped])).toMatchObject({ status: 0 });
    expect(await command([stripped, "doctor", "--self"], { dir })).toMatchObject({ status: 0 });
  },
  60_000,
);

test.if(linux).each([
  [".rodata", "\0\x01UN_BE_BUN\0", "\0BUN_BE_BUN\0", "own code"],
  [".dynstr", "\0getrlimit\0", "\0setrlimit\0", "transparent"],
])(
  "a binary in whose %s %j was put back to %j is reported, with status 71",
  async (name, from, to, check) => {
    using dir = new TempDir();
    using home = new TempDir();
    const bytes = readFileSync(binary);
    const section = new Elf(bytes).bytesOf(name);
    const at = section.lastIndexOf(Buffer.from(from, "latin1"));
    expect(at).toBeGreaterThan(0);
    section.write(to, at, "latin1");
    const changed = home.file("changed");
    writeFileSync(changed, bytes);
    chmodSync(changed, 0o755);
    const { status, stdout } = await command([changed, "doctor", "--self", "--json"], { dir });
    expect(status).toBe(71);
    const wrong = JSON.parse(stdout).checks.filter(({ ok }: { ok: boolean }) => !ok);
    expect(wrong.map(({ check }: { check: string }) => check)).toEqual([check]);
  },
  60_000,
);

test("a directory or a store besides is wrong usage", async () => {
  for (const more of [["/tmp"], ["--store", "redis://localhost"]]) {
    const { status, stderr } = await exclusive(["doctor", "--self", ...more]);
    expect({ status, stderr }).toEqual({
      status: 64,
      stderr: expect.stringContaining("--self checks this program alone"),
    });
  }
});
