import { afterAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { CannotAcquireLock, LockFileError } from "../../../src/errors.ts";
import { FileStore } from "../../../src/store/file/file-store.ts";
import { binary } from "../../support/paths.ts";
import { command, exclusive, Process, type Result, start, startScript } from "../../support/process.ts";
import { required } from "../../support/required.ts";
import { TempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";

const linux = process.platform === "linux";
const mode = "exclusive" as const;
const FILE = "exclusive_t.lock";

/** The error of an attempt to take the lock `t`. */
function refusal(dir: string): LockFileError {
  try {
    new FileStore({ dir }).tryAcquireSync({ name: "t", mode })?.releaseSync();
  } catch (error) {
    expect(error).toBeInstanceOf(LockFileError);
    return error as LockFileError;
  }
  throw new Error("the lock was to be had");
}

const openDescriptors = (): number => readdirSync("/dev/fd").length;

describe("another kind of file at the path of the lock", () => {
  /** Checks that the library and the command refuse it, and leave it as it is. */
  async function isRefused(dir: TempDir, code: string, text: string): Promise<void> {
    const before = openDescriptors();
    expect(refusal(dir.path)).toMatchObject({ code, operation: "open", path: dir.file(FILE) });
    expect(refusal(dir.path).message).toContain(text);
    expect(refusal(dir.path).message).toContain("remove it or use another directory");
    expect(openDescriptors()).toBe(before);
    const run = await exclusive(["run", "t", "--", "echo", "no"], { dir });
    expect(run).toMatchObject({ status: 73, stdout: "" });
    expect(run.stderr).toContain(text);
    const waiting = await exclusive(["run", "--wait", "t", "--", "echo", "no"], { dir });
    expect(waiting).toMatchObject({ status: 73, stdout: "" });
  }

  test("a symbolic link: nothing is written through it", async () => {
    using dir = new TempDir();
    writeFileSync(dir.file("victim"), "precious");
    symlinkSync("victim", dir.file(FILE));
    await isRefused(dir, "ELOOP", "a symbolic link is in its place");
    expect(readFileSync(dir.file("victim"), "utf8")).toBe("precious");
    rmSync(dir.file("victim"));
    await isRefused(dir, "ELOOP", "a symbolic link is in its place"); // a dangling one creates nothing
    expect(dir.list()).toEqual([FILE]);
  });

  test("a FIFO: no hang", async () => {
    using dir = new TempDir();
    await command(["mkfifo", dir.file(FILE)]);
    await isRefused(dir, "EINVAL", "not a regular file");
    expect(lstatSync(dir.file(FILE)).isFIFO()).toBe(true);
  });

  test("a directory", async () => {
    using dir = new TempDir();
    mkdirSync(dir.file(FILE));
    await isRefused(dir, "EISDIR", "a directory is in its place");
    expect(lstatSync(dir.file(FILE)).isDirectory()).toBe(true);
  });

  test("a hard link to another file: nothing is written through it", async () => {
    using dir = new TempDir();
    writeFileSync(dir.file("victim"), "precious");
    linkSync(dir.file("victim"), dir.file(FILE));
    await isRefused(dir, "EINVAL", "has other links");
    expect(readFileSync(dir.file("victim"), "utf8")).toBe("precious");
    expect(lstatSync(dir.file("victim")).nlink).toBe(2);
  });

  test("no directory, or a file in its place", async () => {
    using dir = new TempDir();
    expect(refusal(dir.file("none"))).toMatchObject({ code: "ENOENT" });
    expect(refusal(dir.file("none")).message).toContain("make the directory");
    writeFileSync(dir.file("f"), "");
    expect(refusal(dir.file("f"))).toMatchObject({ code: "ENOTDIR" });
    expect(refusal(`${dir.path}/\x1b[31m`).message).toContain("\\x1b[31m");
  });

  test("a file with any content is a free lock", () => {
    using dir = new TempDir();
    for (const content of ["", "junk", "x".repeat(100_000), `${process.pid}\n{"version":1}\n`]) {
      writeFileSync(dir.file(FILE), content);
      const lease = new FileStore({ dir: dir.path }).tryAcquireSync({ name: "t", mode });
      expect(readFileSync(dir.file(FILE), "utf8").split("\n")).toHaveLength(3);
      lease!.releaseSync();
      expect(dir.list()).toEqual([]);
    }
  });
});

describe.if(process.getuid?.() === 0 && required("setpriv", "util-linux"))("another user's file", () => {
  const NOBODY = 65534;
  // The binary in a place where any user may run it.
  const bin = new TempDir();
  afterAll(() => bin[Symbol.dispose]());
  chmodSync(bin.path, 0o755);
  const reachable = (): string => {
    const copy = bin.file("exclusive");
    if (!existsSync(copy)) copyFileSync(binary, copy);
    return copy;
  };
  const asNobody = ["setpriv", `--reuid=${NOBODY}`, "--clear-groups"];
  const nobody = (dir: TempDir, ...args: string[]): Promise<Result> =>
    command([...asNobody, reachable(), ...args], { dir, cwd: "/" });

  test("that its holder left behind: the lock is free, and nothing is written into the file", async () => {
    using dir = new TempDir();
    for (const permissions of [0o755, 0o777, 0o1777]) {
      chmodSync(dir.path, permissions);
      writeFileSync(dir.file(FILE), "999999999\nprecious\n");
      chownSync(dir.file(FILE), NOBODY, NOBODY);
      const theirs = openSync(dir.file(FILE), "r"); // sees what is written into it, also when it is deleted
      await using held = start(["run", "t", "--", "sh", "-c", "echo begun; exec sleep 60"], { dir });
      await held.says("begun");
      // Deleted instead of written to: the new file is that of this user, and names this process.
      expect(lstatSync(dir.file(FILE))).toMatchObject({ uid: 0 });
      expect(readFileSync(theirs, "utf8")).toBe("999999999\nprecious\n");
      closeSync(theirs);
      const refused = await nobody(dir, "run", "t", "--", "echo", "no");
      expect(refused).toMatchObject({ status: 75, stdout: "" });
      expect(refused.stderr).toContain(`pid ${held.pid}`);
      held.kill();
      await held.result;
      expect(dir.list()).toEqual([]);
    }
  });

  test("in a sticky directory, where it cannot be deleted: a valid lock on the file as it is", async () => {
    using dir = new TempDir();
    chmodSync(dir.path, 0o1777);
    for (const permissions of [0o644, 0o666]) {
      writeFileSync(dir.file(FILE), "precious\n");
      chmodSync(dir.file(FILE), permissions);
      expect(await nobody(dir, "run", "t", "--", "echo", "mine")).toMatchObject({
        status: 0,
        stdout: "mine\n",
      });
      await using held = start(["run", "--keep", "t", "--", "sh", "-c", "echo begun; exec sleep 60"], {
        dir,
      });
      await held.says("begun");
      expect(await nobody(dir, "run", "t", "--", "echo", "no")).toMatchObject({ status: 75, stdout: "" });
      held.kill();
      await held.result;
    }
    rmSync(dir.file(FILE), { force: true });
  });

  test("is not written into if the directory permits neither", async () => {
    using dir = new TempDir();
    chmodSync(dir.path, 0o1777);
    writeFileSync(dir.file(FILE), "precious\n");
    chmodSync(dir.file(FILE), 0o666);
    for (const options of [[], ["--keep"], ["--shared"]]) {
      const look = await nobody(dir, "run", ...options, "t", "--", "cat", dir.file(FILE));
      expect(look).toMatchObject({ status: 0, stdout: "precious\n" });
      expect(readFileSync(dir.file(FILE), "utf8")).toBe("precious\n");
    }
  });

  test("without read permission: a clear error", async () => {
    using dir = new TempDir();
    chmodSync(dir.path, 0o1777);
    writeFileSync(dir.file(FILE), "");
    chmodSync(dir.file(FILE), 0o600);
    const { status, stdout, stderr } = await nobody(dir, "run", "t", "--", "echo", "no");
    expect({ status, stdout }).toEqual({ status: 73, stdout: "" });
    expect(stderr).toContain("owned by root and not readable by you; root can remove it");
  });

  test("that is locked in shared mode is not deleted by another shared holder", async () => {
    using dir = new TempDir();
    chmodSync(dir.path, 0o777);
    const run = ["run", "--shared", "t", "--", "sh", "-c", "echo begun; exec sleep 60"];
    await using theirs = new Process([...asNobody, reachable(), ...run], { dir, cwd: "/" });
    await theirs.says("begun");
    const inode = lstatSync(dir.file(FILE)).ino;
    expect(await exclusive(["run", "--shared", "t", "--", "true"], { dir })).toMatchObject({ status: 0 });
    expect(lstatSync(dir.file(FILE)).ino).toBe(inode);
    expect(await exclusive(["run", "t", "--", "true"], { dir })).toMatchObject({ status: 75 });
  });

  test("a directory without write permission", async () => {
    using dir = new TempDir();
    chmodSync(dir.path, 0o755);
    const { status, stderr } = await nobody(dir, "run", "t", "--", "true");
    expect(status).toBe(73);
    expect(stderr).toContain("use a directory that you may write (EXCLUSIVE_DIR names one)");
  });
});

describe("a file that is deleted or replaced by hand", () => {
  test("its holder does not delete the new file", () => {
    using dir = new TempDir();
    const store = new FileStore({ dir: dir.path });
    const first = store.tryAcquireSync({ name: "t", mode })!;
    rmSync(dir.file(FILE));
    const second = store.tryAcquireSync({ name: "t", mode })!;
    expect(second).toBeDefined();
    const inode = lstatSync(dir.file(FILE)).ino;
    first.releaseSync();
    expect(lstatSync(dir.file(FILE)).ino).toBe(inode);
    expect(store.tryAcquireSync({ name: "t", mode })).toBeUndefined();
    second.releaseSync();
    expect(dir.list()).toEqual([]);
  });

  test("a waiter goes on to the new file", async () => {
    using dir = new TempDir();
    const store = new FileStore({ dir: dir.path });
    const first = store.tryAcquireSync({ name: "t", mode })!;
    const waiting = store.waitAcquire({ name: "t", mode });
    const waits = async () => (await store.status("t")).waiters !== 0;
    if (linux) await until(waits, "the waiter");
    renameSync(dir.file(FILE), dir.file("elsewhere"));
    const second = store.tryAcquireSync({ name: "t", mode })!;
    first.releaseSync();
    if (linux) await until(waits, "the waiter at the second file");
    second.releaseSync();
    const third = await waiting;
    expect(existsSync(dir.file(FILE))).toBe(true);
    third.releaseSync();
    expect(dir.list()).toEqual(["elsewhere"]);
  });
});

test("no descriptor stays open, however the call ends", async () => {
  using dir = new TempDir();
  const store = new FileStore({ dir: dir.path });
  await store.waitAcquire({ name: "warm", mode }).then((lease) => lease.release());
  const before = openDescriptors();
  const lease = store.tryAcquireSync({ name: "t", mode })!;
  for (let i = 0; i < 5; i++) expect(store.tryAcquireSync({ name: "t", mode })).toBeUndefined();
  await store.waitAcquire({ name: "t", mode }, AbortSignal.timeout(10)).catch(() => {});
  await store.status("t");
  lease.releaseSync();
  refusal(dir.file("none"));
  await store.waitAcquire({ name: "t", mode }).then((waited) => waited.release());
  await store.list();
  await until(() => openDescriptors() <= before, "the descriptors to be closed");
  expect(dir.list()).toEqual([]);
});

test("two processes create the file at once: one has the lock, the other is refused or waits", async () => {
  using dir = new TempDir();
  const go = `const at = ${Date.now() + 1000}; while (Date.now() < at) {}
    try { new Lock({ name: "t" }).acquireSync(); console.log("held"); setInterval(() => {}, 1000); }
    catch (error) { console.log(error instanceof CannotAcquireLock ? "refused" : error); }`;
  const scripts = Array.from({ length: 4 }, () => startScript(go, dir));
  try {
    await until(() => scripts.every(({ stdout }) => stdout !== ""), "all four");
    expect(scripts.map(({ stdout }) => stdout).sort()).toEqual([
      "held\n",
      "refused\n",
      "refused\n",
      "refused\n",
    ]);
  } finally {
    for (const script of scripts) await script[Symbol.asyncDispose]();
  }
});

/** Runs the binary under strace, which lets a system call fail on the lock file only. */
describe.if(linux && required("strace", "strace"))("a system call that fails", () => {
  const failing = (dir: TempDir, inject: string, ...args: string[]) =>
    new Process(
      [
        ..."strace -qqq -e signal=none -o /dev/null -P".split(" "),
        dir.file(FILE),
        "-e",
        `inject=${inject}`,
        binary,
        ...args,
      ],
      { dir },
    );
  const isFree = async (dir: TempDir) => (await exclusive(["run", "t", "--", "true"], { dir })).status === 0;

  test.each(["EIO", "EACCES", "ENOMEM"])(
    "lstat or fstat with %s is an error, not a deleted file",
    async (errno) => {
      using dir = new TempDir();
      writeFileSync(dir.file(FILE), "");
      for (const when of ["1", "2", "1+"]) {
        const run = await failing(dir, `statx:error=${errno}:when=${when}`, "run", "t", "--", "echo", "no")
          .result;
        expect(run).toMatchObject({ status: errno === "ENOMEM" ? 71 : 74, stdout: "" });
        expect(run.stderr).toContain(`cannot look at ${dir.file(FILE)}: `);
      }
      expect(await isFree(dir)).toBe(true);
    },
  );

  test.each(["EPERM", "EROFS", "EIO"])(
    "unlink with %s: the lock is free nevertheless, and the file names no process",
    async (errno) => {
      using dir = new TempDir();
      const run = await failing(
        dir,
        `?unlink,?unlinkat:error=${errno}`,
        "run",
        "t",
        "--",
        "sh",
        "-c",
        "sleep 60 >&- 2>&- & echo $!",
      ).result;
      const daemon = Number(run.stdout);
      try {
        expect(run).toMatchObject({ status: 0, stderr: "" });
        expect(readFileSync(dir.file(FILE), "utf8")).toBe("");
        expect(await isFree(dir)).toBe(true);
      } finally {
        process.kill(daemon);
      }
      expect(dir.list()).toEqual([]);
    },
  );

  test.each([
    "pwrite64:error=ENOSPC",
    "pwrite64:error=EIO",
    "ftruncate:error=EIO",
    "pwrite64,ftruncate:error=EFBIG",
  ])("%s costs the record, not the lock", async (inject) => {
    using dir = new TempDir();
    await using held = failing(dir, inject, "run", "t", "--", "sh", "-c", "echo begun; exec sleep 60");
    await held.says("begun");
    expect(await exclusive(["run", "t", "--", "true"], { dir })).toMatchObject({ status: 75 });
    held.kill("SIGTERM");
  });

  test.each(["ENOLCK", "EOPNOTSUPP", "EIO"])(
    "flock with %s is an I/O error that names the file system",
    async (errno) => {
      using dir = new TempDir();
      const run = await failing(dir, `flock:error=${errno}`, "run", "t", "--", "echo", "no").result;
      expect(run).toMatchObject({ status: 74, stdout: "" });
      expect(run.stderr).toContain("does this file system have locks? try exclusive doctor");
    },
  );

  test("a flock that a signal interrupts is tried again", async () => {
    using dir = new TempDir();
    const run = await failing(dir, "flock:error=EINTR:when=1..3", "run", "t", "--", "echo", "done").result;
    expect(run).toMatchObject({ status: 0, stdout: "done\n", stderr: "" });
    expect(dir.list()).toEqual([]);
  });

  test("a file system with unstable inodes is reported, not retried forever", async () => {
    using dir = new TempDir();
    // Missing when it is opened, existing when it is created.
    writeFileSync(dir.file(FILE), "");
    const run = await failing(dir, "openat,?open:error=ENOENT:when=1+2", "run", "t", "--", "echo", "no")
      .result;
    expect(run).toMatchObject({ status: 74, stdout: "" });
    expect(run.stderr).toContain("each look finds another file there");
  });
});

test("a full disk costs the record, not the lock", async () => {
  using dir = new TempDir();
  // A limit of the file size: a write beyond it fails as on a full disk.
  const script = `ulimit -f 0; trap "" XFSZ; exec "$@"`;
  const run = ["run", "t", "--", "sh", "-c", "echo begun; exec sleep 60"];
  await using held = new Process(["sh", "-c", script, "sh", binary, ...run], { dir });
  await held.says("begun");
  expect(readFileSync(dir.file(FILE), "utf8")).toBe("");
  expect(() => {
    if (new FileStore({ dir: dir.path }).tryAcquireSync({ name: "t", mode }) === undefined)
      throw new CannotAcquireLock({ lock: "t", lockfile: dir.file(FILE) });
  }).toThrow(CannotAcquireLock);
  held.kill();
  await held.result;
  expect(dir.list()).toEqual([]);
});
