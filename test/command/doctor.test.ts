import { expect, test } from "bun:test";
import { classify, fileSystemOf } from "../../src/command/doctor/file-system.ts";
import { binary, root } from "../support/paths.ts";
import { command, exclusive, Process, start } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const doctor = (dir: TempDir, ...args: string[]) => exclusive(["doctor", ...args], { dir });

test("a directory of this machine: locks work, and nothing is left behind", async () => {
  using dir = new TempDir();
  const { stdout, stderr, status } = await doctor(dir);
  expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
  expect(stdout.split("\n").map((line) => line.slice(0, 3))).toEqual([
    "yes",
    "yes",
    "yes",
    "yes",
    "yes",
    dir.path.slice(0, 3),
    "",
  ]);
  expect(dir.list()).toEqual([]);
});

test("--json, and a DIR that has precedence over EXCLUSIVE_DIR; as a script too", async () => {
  using dir = new TempDir();
  using other = new TempDir();
  for (const program of [[binary], [process.execPath, `${root}/src/command/main.ts`]]) {
    const { stdout, status } = await command([...program, "doctor", "--json", other.path], { dir });
    expect(status).toBe(0);
    const said = JSON.parse(stdout);
    expect(said).toMatchObject({
      directory: other.path,
      ok: true,
      fileSystem: { type: expect.any(String), local: true },
    });
    expect(said.checks.map(({ check, ok }: { check: string; ok: boolean }) => [check, ok])).toEqual([
      ["excludes", true],
      ["freed by release", true],
      ["freed by kill", true],
      ["read-only file", true],
      ["local", true],
    ]);
  }
  expect(other.list()).toEqual([]);
});

test("a signal leaves nothing behind either", async () => {
  using dir = new TempDir();
  for (let delay = 0; delay < 60; delay += 10) {
    await using running = start(["doctor"], { dir });
    await Bun.sleep(delay);
    running.kill("SIGTERM");
    await running.result;
    await until(
      () => dir.list().length === 0,
      "the directory is empty",
      () => dir.list().join(),
    );
  }
});

test("locks that do not exclude each other are found", async () => {
  using dir = new TempDir();
  // A child that deletes the file it has just locked: so a file system without locks appears from here.
  const fake = dir.file("fake");
  await Bun.write(`${fake}/locks/.keep`, "");
  const shim = `${fake}/cat`;
  await Bun.write(shim, '#!/bin/sh\nrm -f "$EXCLUSIVE_LOCKFILE"\nexec /bin/cat\n');
  await command(["chmod", "+x", shim]);
  await using asked = new Process([binary, "doctor", "--json", `${fake}/locks`], {
    env: { PATH: `${fake}:${process.env.PATH}` },
  });
  const { stdout, status } = await asked.result;
  expect(status).toBe(74);
  expect(JSON.parse(stdout)).toMatchObject({
    ok: false,
    checks: [{ check: "excludes", ok: false }, {}, {}, {}, {}],
  });
});

test("a missing directory, a file instead of one, or two", async () => {
  using dir = new TempDir();
  await Bun.write(dir.file("file"), "");
  expect(await doctor(dir, dir.file("none"))).toMatchObject({
    status: 73,
    stderr: expect.stringContaining("No such file"),
  });
  expect((await doctor(dir, dir.file("file"))).status).toBe(64); // not a directory
  expect((await doctor(dir, "a", "b")).status).toBe(64);
});

test("the type is the kernel's: the one that findmnt prints", async () => {
  if (!required("findmnt", "util-linux")) return;
  for (const dir of ["/", "/dev/shm", "/proc"]) {
    const { stdout } = await command(["findmnt", "-n", "-o", "FSTYPE", "-T", dir]);
    expect(fileSystemOf(dir).type).toBe(stdout.trim().split("\n").at(-1)!);
  }
  expect(fileSystemOf("/dev/shm").local).toBe(true);
  expect(fileSystemOf("/proc").local).toBeUndefined();
});

test.each([
  [0x6969, { type: "nfs4", options: ["rw", "vers=4.2"] }, false, /between hosts/],
  [0x6969, { type: "nfs", options: ["rw", "nolock"] }, false, /this host only/],
  [0x6969, { type: "nfs4", options: ["local_lock=all"] }, false, /this host only/],
  [0xff534d42, { type: "cifs", options: ["nobrl"] }, false, /this host only/],
  [0xff534d42, { type: "cifs", options: [] }, false, undefined],
  [0x0bd00bd0, { type: "lustre", options: [] }, false, /-o flock/],
  [0x01021997, { type: "9p", options: [] }, false, /this guest only/],
  [0x65735546, { type: "fuse.sshfs", options: [] }, undefined, /FUSE/],
  [0x65735546, { type: "virtiofs", options: [] }, undefined, /FUSE/],
  [0x65735546, { type: "fuseblk", options: [] }, true, undefined],
  [0xef53, { type: "ext4", options: [] }, true, undefined],
  [0x12345678, undefined, undefined, undefined],
] as const)("file system %p %j", (magic, mount, local, advice) => {
  const found = classify(magic, mount && { type: mount.type, options: [...mount.options] });
  expect(found.local).toBe(local);
  expect(found.type).toBe(mount?.type ?? "0x12345678");
  if (advice) expect(found.advice).toMatch(advice);
  else expect(found.advice).toBeUndefined();
});
