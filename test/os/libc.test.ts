import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  closeSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import * as os from "node:os";
import { getSystemErrorName } from "node:util";
import * as kernel from "../../src/os/libc.ts";
import { isIgnored } from "../../src/os/signal-sets.ts";
import { root } from "../support/paths.ts";
import { command, Process } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const { O, E, LOCK } = kernel;

test("the constants are those of this system", () => {
  const fs = require("node:fs").constants as Record<string, number>;
  for (const [name, value] of Object.entries(O))
    if (name !== "CLOEXEC") expect([name, value]).toEqual([name, fs[`O_${name}`]!]);
  for (const [name, value] of Object.entries(E))
    expect([name, value]).toEqual([name, (os.constants.errno as Record<string, number>)[name]!]);
});

test("errors have the name and the text that the system gives them", () => {
  expect(kernel.errorName(E.EACCES)).toBe("EACCES");
  expect(kernel.errorText(E.EACCES)).toBe("Permission denied");
  expect(kernel.errorName(28)).toBe(getSystemErrorName(-28));
});

describe("files", () => {
  test("open returns an error as the negative errno", () => {
    using dir = new TempDir();
    const path = dir.file("f");
    expect(kernel.open(path, O.RDWR)).toBe(-E.ENOENT);
    const fd = kernel.open(path, O.RDWR | O.CREAT | O.EXCL | O.CLOEXEC, 0o640);
    expect(fd).toBeGreaterThan(2);
    expect(lstatSync(path).mode & 0o777 & ~0o640).toBe(0);
    expect(kernel.open(path, O.RDWR | O.CREAT | O.EXCL)).toBe(-E.EEXIST);
    expect(kernel.open(dir.path, O.RDWR)).toBe(-E.EISDIR);
    symlinkSync(path, dir.file("link"));
    expect(kernel.open(dir.file("link"), O.RDONLY | O.NOFOLLOW)).toBe(-E.ELOOP);
    expect(kernel.close(fd)).toBe(0);
    expect(kernel.close(fd)).toBe(-E.EBADF);
    expect(kernel.unlink(path)).toBe(0);
    expect(kernel.unlink(path)).toBe(-E.ENOENT);
  });

  test("a path with a NUL, or one that is too long, is not truncated", () => {
    using dir = new TempDir();
    writeFileSync(dir.file("f"), "");
    expect(kernel.open(dir.file("f\0g"), O.RDONLY)).toBe(-E.ENAMETOOLONG);
    expect(kernel.lstat(`${dir.path}/${"a/".repeat(4000)}`)).toBe(-E.ENAMETOOLONG);
    expect(kernel.unlink(dir.file("f\0"))).toBe(-E.ENAMETOOLONG);
    expect(kernel.writableDirectory(`${dir.path}\0`)).toBe(false);
    expect(dir.list()).toEqual(["f"]);
  });

  test("names in UTF-8", () => {
    using dir = new TempDir();
    const fd = kernel.open(dir.file("ünï 🔒"), O.RDWR | O.CREAT);
    kernel.close(fd);
    expect(dir.list()).toEqual(["ünï 🔒"]);
    expect(kernel.readDirectory(dir.path)).toEqual(["ünï 🔒"]);
  });

  test("a descriptor that is opened close-on-exec does not reach a command", async () => {
    using dir = new TempDir();
    writeFileSync(dir.file("f"), "");
    const fd = kernel.open(dir.file("f"), O.RDONLY | O.CLOEXEC);
    const { stdout } = await command(["sh", "-c", "ls -l /dev/fd/"]);
    kernel.close(fd);
    expect(stdout).not.toContain(dir.path);
  });

  test("pwrite and pread use a position, and transfer everything", () => {
    using dir = new TempDir();
    const fd = kernel.open(dir.file("f"), O.RDWR | O.CREAT);
    const bytes = new Uint8Array(100_000).map((_, i) => i);
    expect(kernel.pwrite(fd, bytes)).toBe(bytes.length);
    expect(kernel.pread(fd, 1 << 20)).toEqual(bytes);
    expect(kernel.pread(fd, 5000)).toEqual(bytes.subarray(0, 5000));
    expect(kernel.ftruncate(fd, 3)).toBe(0);
    expect(kernel.pread(fd, 10)).toEqual(bytes.subarray(0, 3));
    kernel.close(fd);
    expect(kernel.pwrite(fd, bytes)).toBe(-E.EBADF);
    expect(kernel.pread(fd, 10)).toBe(-E.EBADF);
    const readOnly = kernel.open(dir.path, O.RDONLY);
    expect(kernel.pread(readOnly, 10)).toBe(-E.EISDIR);
    kernel.close(readOnly);
  });

  test("lstat and fstat agree with node:fs", () => {
    using dir = new TempDir();
    writeFileSync(dir.file("f"), "");
    linkSync(dir.file("f"), dir.file("g"));
    symlinkSync("f", dir.file("link"));
    mkdirSync(dir.file("d"));
    for (const name of ["f", "g", "link", "d"]) {
      const theirs = lstatSync(dir.file(name), { bigint: true });
      const ours = kernel.lstat(dir.file(name)) as kernel.FileStatus;
      expect(ours).toMatchObject({
        regular: theirs.isFile(),
        directory: theirs.isDirectory(),
        links: Number(theirs.nlink),
        uid: Number(theirs.uid),
        ino: theirs.ino,
      });
    }
    const status = (name: string) => kernel.lstat(dir.file(name)) as kernel.FileStatus;
    expect(kernel.sameFile(status("f"), status("g"))).toBe(true);
    expect(kernel.sameFile(status("f"), status("d"))).toBe(false);
    const fd = openSync(dir.file("g"), "r");
    expect(kernel.fstat(fd)).toEqual(status("f"));
    closeSync(fd);
    expect(kernel.fstat(fd)).toBe(-E.EBADF);
    expect(kernel.lstat(dir.file("none"))).toBe(-E.ENOENT);
    expect(kernel.sameFile(status("d"), kernel.lstat("/dev") as kernel.FileStatus)).toBe(false);
  });

  test("readlink, readText, readDirectory: what cannot be read", () => {
    using dir = new TempDir();
    symlinkSync("to/somewhere", dir.file("link"));
    expect(kernel.readlink(dir.file("link"))).toBe("to/somewhere");
    expect(kernel.readlink(dir.path)).toBeUndefined();
    expect(kernel.readText(dir.file("none"))).toBeUndefined();
    expect(kernel.readDirectory(dir.file("none"))).toBe(-E.ENOENT);
    expect(kernel.readText(`${root}/LICENSE`)).toBe(readFileSync(`${root}/LICENSE`, "utf8"));
  });

  test("writableDirectory", () => {
    using dir = new TempDir();
    expect(kernel.writableDirectory(dir.path)).toBe(true);
    expect(kernel.writableDirectory(dir.file("none"))).toBe(false);
    chmodSync(dir.path, 0o500);
    expect(kernel.writableDirectory(dir.path)).toBe(process.getuid?.() === 0);
    chmodSync(dir.path, 0o700);
  });
});

test("flock is a lock of the open file, not of the process", () => {
  using dir = new TempDir();
  writeFileSync(dir.file("f"), "");
  const [a, b] = [0, 1].map(() => kernel.open(dir.file("f"), O.RDONLY)) as [number, number];
  expect(kernel.flock(a, LOCK.EX | LOCK.NB)).toBe(0);
  expect(kernel.flock(b, LOCK.SH | LOCK.NB)).toBe(-E.EAGAIN);
  expect(kernel.flock(a, LOCK.SH | LOCK.NB)).toBe(0);
  expect(kernel.flock(b, LOCK.SH | LOCK.NB)).toBe(0);
  expect(kernel.flock(b, LOCK.EX | LOCK.NB)).toBe(-E.EAGAIN); // and what b had is lost
  expect(kernel.flock(a, LOCK.UN)).toBe(0);
  expect(kernel.flock(b, LOCK.EX | LOCK.NB)).toBe(0);
  kernel.close(a);
  kernel.close(b);
  expect(kernel.flock(a, LOCK.EX | LOCK.NB)).toBe(-E.EBADF);
});

test("processExists", async () => {
  expect(kernel.processExists(process.pid)).toBe(true);
  expect(kernel.processExists(1)).toBe(true); // also one that we may not signal
  const gone = new Process(["true"]);
  await gone.result;
  await until(() => !kernel.processExists(gone.pid), "the end of a process");
});

test("isIgnored detects nohup and a shell's &", async () => {
  const script = `import { isIgnored } from ${JSON.stringify(`${root}/src/os/signal-sets.ts`)};
    console.log(["SIGHUP", "SIGINT", "SIGTERM"].map(isIgnored).join());`;
  const run = (...prefix: string[]) => command([...prefix, process.execPath, "-e", script]);
  expect(isIgnored("SIGTERM")).toBe(false);
  expect((await run()).stdout).toBe("false,false,false\n");
  expect((await run("sh", "-c", `trap "" HUP TERM; exec "$@"`, "sh")).stdout).toBe("true,false,true\n");
});
