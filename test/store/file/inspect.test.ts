/** Inspects lock files from outside. The tests of `list` and `status` are in test/command. */
import { expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { fileName } from "../../../src/name.ts";
import { holdsLock, processesHolding } from "../../../src/os/lock-table.ts";
import { FileStore } from "../../../src/store/file/file-store.ts";
import { canUnshare, unshare } from "../../support/namespaces.ts";
import { library } from "../../support/paths.ts";
import { command, commandOf, hold, Process } from "../../support/process.ts";
import { TempDir } from "../../support/temp-dir.ts";

test("anything but a regular file is unknown, and is neither opened nor waited for", async () => {
  using dir = new TempDir();
  await command(["mkfifo", dir.file(fileName("fifo"))]);
  symlinkSync("/etc/passwd", dir.file(fileName("link")));
  const store = new FileStore({ dir: dir.path });
  for (const name of ["fifo", "link"]) expect((await store.status(name)).state).toBe("unknown");
  mkdirSync(dir.file(fileName("directory")));
  expect((await store.status("directory")).state).toBe("free");
});

test("a path that cannot be inspected is an error", async () => {
  using dir = new TempDir();
  writeFileSync(dir.file("file"), "");
  const store = new FileStore({ dir: dir.file("file") });
  await expect(store.status("job")).rejects.toMatchObject({ code: "ENOTDIR", operation: "lstat" });
  await expect(store.list()).rejects.toMatchObject({ code: "ENOTDIR", operation: "opendir" });
});

test("a name in the record counts only if the file's name proves it", async () => {
  using dir = new TempDir();
  const long = "a".repeat(300);
  await using _holder = await hold(dir, long);
  const [lock] = await new FileStore({ dir: dir.path }).list();
  expect(lock!.name).toBe(long);
  const text = await Bun.file(lock!.lockfile).text();
  writeFileSync(lock!.lockfile, text.replace(long, `${"a".repeat(299)}b`));
  expect((await new FileStore({ dir: dir.path }).list())[0]!.name).toMatch(/^a+-[0-9a-f]{64}$/);
});

test("the holders of a lock are the processes that have its open file, according to the kernel", async () => {
  using dir = new TempDir();
  await using wrapper = await hold(dir, "job");
  await using reader = new Process([
    "sh",
    "-c",
    "exec 9<$1; echo begun; exec sleep 600",
    "sh",
    dir.file("exclusive_job.lock"),
  ]);
  await reader.says("begun");
  const file = dir.file("exclusive_job.lock");
  const pid = commandOf(wrapper);
  expect(processesHolding(file).sort()).toEqual([wrapper.pid, pid].sort());
  expect(holdsLock(reader.pid, file)).toBe(false);
  expect(holdsLock(pid, dir.file("none"))).toBe(false);
});

test.if(canUnshare())(
  "if the kernel does not name the holder, the mode of the lock is found by trying",
  async () => {
    using dir = new TempDir();
    await using _one = await hold(dir, "exclusive");
    await using _two = await hold(dir, "shared", "--shared");
    writeFileSync(dir.file(fileName("free")), "");
    const script = `
    import { FileStore } from ${JSON.stringify(library.replace("index", "store/file/file-store"))};
    const locks = await new FileStore({ dir: ${JSON.stringify(dir.path)} }).list();
    console.log(JSON.stringify(locks.map(({ name, state, holder }) => [name, state, holder?.mode])));`;
    const { stdout } = await command([...unshare, process.execPath, "-e", script]);
    expect(JSON.parse(stdout)).toEqual([
      ["exclusive", "held", "exclusive"],
      ["free", "free", null],
      ["shared", "held", "shared"],
    ]);
  },
);
