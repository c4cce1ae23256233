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
import { errorText } from "../../src/os/errors.ts";
import * as kernel from "../../src/os/files.ts";
import { flock, LOCK } from "../../src/os/flock.ts";
import { errorCode } from "../../src/os/libc.ts";
import { processExists } from "../../src/os/processes.ts";
import { isIgnored } from "../../src/os/signal-sets.ts";
import { root } from "../support/paths.ts";
import { command, Process } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const { O } = kernel;

/** The codes that the program compares with, or has a sentence for. */
const CODES = [
  ...["EPERM", "ENOENT", "ESRCH", "EINTR", "EIO", "ENOEXEC", "EBADF", "EAGAIN", "ENOMEM", "EACCES", "EEXIST"],
  ...[
    "EISDIR",
    "EINVAL",
    "ENFILE",
    "EMFILE",
    "ENOSPC",
    "EROFS",
    "EPIPE",
    "ERANGE",
    "ENAMETOOLONG",
    "ENOLCK",
    "ELOOP",
  ],
];

test("the constants are this system's", () => {
  const fs = require("node:fs").constants as Record<string, number>;
  for (const [name, value] of Object.entries(O)) expect([name, value]).toEqual([name, fs[`O_${name}`]!]);
  for (const name of CODES)
    expect(errorCode((os.constants.errno as Record<string, number>)[name]!)).toBe(name);
});

test("errors have the name and the text that the system gives them", () => {
  expect(errorCode(os.constants.errno.EACCES)).toBe("EACCES");
  expect(errorText("EACCES")).toBe("Permission denied");
  expect(errorCode(28)).toBe(getSystemErrorName(-28));
});

describe("files", () => {
  test("open: a refusal comes back as its code", () => {
    using dir = new TempDir();
    const path = dir.file("f");
    expect(kernel.open(path, O.RDWR)).toBe("ENOENT");
    const fd = kernel.open(path, O.RDWR | O.CREAT | O.EXCL, 0o640) as number;
    expect(fd).toBeGreaterThan(2);
    expect(lstatSync(path).mode & 0o777 & ~0o640).toBe(0);
    expect(kernel.open(path, O.RDWR | O.CREAT | O.EXCL)).toBe("EEXIST");
    expect(kernel.open(dir.path, O.RDWR)).toBe("EISDIR");
    symlinkSync(path, dir.file("link"));
    expect(kernel.open(dir.file("link"), O.RDONLY | O.NOFOLLOW)).toBe("ELOOP");
    expect(kernel.close(fd)).toBeUndefined();
    expect(kernel.close(fd)).toBe("EBADF");
    expect(kernel.unlink(path)).toBeUndefined();
    expect(kernel.unlink(path)).toBe("ENOENT");
  });

  test("a path with a NUL, or one that is too long, is no shorter path", () => {
    using dir = new TempDir();
    writeFileSync(dir.file("f"), "");
    expect(kernel.open(dir.file("f\0g"), O.RDONLY)).toBe("ENAMETOOLONG");
    expect(kernel.lstat(`${dir.path}/${"a/".repeat(4000)}`)).toBe("ENAMETOOLONG");
    expect(kernel.unlink(dir.file("f\0"))).toBe("ENAMETOOLONG");
    expect(kernel.access(`${dir.path}\0`, kernel.ACCESS.W)).toBe("ENAMETOOLONG");
    expect(dir.list()).toEqual(["f"]);
  });

  test("names in UTF-8", () => {
    using dir = new TempDir();
    const fd = kernel.open(dir.file("ünï 🔒"), O.RDWR | O.CREAT) as number;
    kernel.close(fd);
    expect(dir.list()).toEqual(["ünï 🔒"]);
    expect(kernel.readDirectory(dir.path)).toEqual(["ünï 🔒"]);
  });

  test("a descriptor that is opened close-on-exec does not reach a command", async () => {
    using dir = new TempDir();
    writeFileSync(dir.file("f"), "");
    const fd = kernel.open(dir.file("f"), O.RDONLY) as number;
    const { stdout } = await command(["sh", "-c", "ls -l /dev/fd/"]);
    kernel.close(fd);
    expect(stdout).not.toContain(dir.path);
  });

  test("pwrite and pread are by position, and take all of it", () => {
    using dir = new TempDir();
    const fd = kernel.open(dir.file("f"), O.RDWR | O.CREAT) as number;
    const bytes = new Uint8Array(100_000).map((_, i) => i);
    expect(kernel.pwrite(fd, bytes)).toBeUndefined();
    expect(kernel.pread(fd, 1 << 20)).toEqual(bytes);
    expect(kernel.pread(fd, 5000)).toEqual(bytes.subarray(0, 5000));
    expect(kernel.ftruncate(fd, 3)).toBeUndefined();
    expect(kernel.pread(fd, 10)).toEqual(bytes.subarray(0, 3));
    kernel.close(fd);
    expect(kernel.pwrite(fd, bytes)).toBe("EBADF");
    expect(kernel.pread(fd, 10)).toBe("EBADF");
    const readOnly = kernel.open(dir.path, O.RDONLY) as number;
    expect(kernel.pread(readOnly, 10)).toBe("EISDIR");
    kernel.close(readOnly);
  });

  test("lstat and fstat see what node:fs sees", () => {
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
    expect(kernel.fstat(fd)).toBe("EBADF");
    expect(kernel.lstat(dir.file("none"))).toBe("ENOENT");
    expect(kernel.sameFile(status("d"), kernel.lstat("/dev") as kernel.FileStatus)).toBe(false);
  });

  test("readlink, readText, readDirectory: what cannot be read", () => {
    using dir = new TempDir();
    symlinkSync("to/somewhere", dir.file("link"));
    expect(kernel.readlink(dir.file("link"))).toBe("to/somewhere");
    expect(kernel.readlink(dir.path)).toBeUndefined();
    expect(kernel.readText(dir.file("none"))).toBeUndefined();
    expect(kernel.readDirectory(dir.file("none"))).toBe("ENOENT");
    expect(kernel.readText(`${root}/LICENSE`)).toBe(readFileSync(`${root}/LICENSE`, "utf8"));
  });

  test("chmodOwn: the mode of a file that cannot be opened, and never through a link", () => {
    using dir = new TempDir();
    writeFileSync(dir.file("f"), "");
    symlinkSync("f", dir.file("link"));
    chmodSync(dir.file("f"), 0);
    expect(kernel.chmodOwn(dir.file("link"), 0o644)).toBe("EPERM");
    expect(kernel.lstat(dir.file("f"))).toMatchObject({ mode: 0 });
    expect(kernel.chmodOwn(dir.file("f"), 0o1644)).toBeUndefined();
    expect(kernel.lstat(dir.file("f"))).toMatchObject({ mode: 0o1644 });
    expect(kernel.chmodOwn(dir.file("none"), 0o644)).toBe("ENOENT");
  });

  test("access: for reading, writing, executing", () => {
    using dir = new TempDir();
    expect(kernel.access(dir.path, kernel.ACCESS.W | kernel.ACCESS.X)).toBeUndefined();
    expect(kernel.access(dir.file("none"), kernel.ACCESS.W)).toBe("ENOENT");
    chmodSync(dir.path, 0o500);
    expect(kernel.access(dir.path, kernel.ACCESS.W) === undefined).toBe(process.getuid?.() === 0);
    chmodSync(dir.path, 0o700);
  });
});

test("flock is a lock of the open file, not of the process", () => {
  using dir = new TempDir();
  writeFileSync(dir.file("f"), "");
  const [a, b] = [0, 1].map(() => kernel.open(dir.file("f"), O.RDONLY)) as [number, number];
  expect(flock(a, LOCK.EX | LOCK.NB)).toBeUndefined();
  expect(flock(b, LOCK.SH | LOCK.NB)).toBe("EAGAIN");
  expect(flock(a, LOCK.SH | LOCK.NB)).toBeUndefined();
  expect(flock(b, LOCK.SH | LOCK.NB)).toBeUndefined();
  expect(flock(b, LOCK.EX | LOCK.NB)).toBe("EAGAIN"); // and what b had is lost
  expect(flock(a, LOCK.UN)).toBeUndefined();
  expect(flock(b, LOCK.EX | LOCK.NB)).toBeUndefined();
  kernel.close(a);
  kernel.close(b);
  expect(flock(a, LOCK.EX | LOCK.NB)).toBe("EBADF");
});

test("processExists", async () => {
  expect(processExists(process.pid)).toBe(true);
  expect(processExists(1)).toBe(true); // also one that we may not signal
  const gone = new Process(["true"]);
  await gone.result;
  await until(() => !processExists(gone.pid), "the end of a process");
});

test("isIgnored: what nohup and a shell's & leave behind", async () => {
  const script = `import { isIgnored } from ${JSON.stringify(`${root}/src/os/signal-sets.ts`)};
    console.log(["SIGHUP", "SIGINT", "SIGTERM"].map(isIgnored).join());`;
  const run = (...prefix: string[]) => command([...prefix, process.execPath, "-e", script]);
  expect(isIgnored("SIGTERM")).toBe(false);
  expect((await run()).stdout).toBe("false,false,false\n");
  expect((await run("sh", "-c", `trap "" HUP TERM; exec "$@"`, "sh")).stdout).toBe("true,false,true\n");
});
