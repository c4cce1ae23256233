import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { CannotAcquireLock, Lock, LockTimeout } from "../src/index.ts";
import { flock, LOCK } from "../src/os/flock.ts";
import { FileStore } from "../src/store/file/file-store.ts";
import { library } from "./support/paths.ts";
import { waiters } from "./support/proc.ts";
import { Process, startScript } from "./support/process.ts";
import { TempDir } from "./support/temp-dir.ts";
import { until } from "./support/until.ts";

/** Starts a script that holds the lock `t` until it is killed, and waits until it has the lock. */
async function startHolder(dir: TempDir, options = ""): Promise<Process> {
  const holder = startScript(
    `new Lock({ name: "t"${options} }).acquireSync(); console.log("held"); setInterval(() => {}, 1000);`,
    dir,
  );
  await holder.says("held");
  return holder;
}

const caught = (body: () => unknown): unknown => {
  try {
    body();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
};

describe("acquireSync", () => {
  test("the file holds the pid while the lock is held, and is gone when it is released", () => {
    using dir = new TempDir();
    const lock = new Lock({ name: "t", dir: dir.path });
    expect(lock.lockfile).toBe(dir.file("exclusive_t.lock"));
    expect(lock.held).toBe(false);
    expect(lock.acquireSync()).toBe(lock);
    expect(lock.held).toBe(true);
    expect(readFileSync(lock.lockfile, "utf8").split("\n")[0]).toBe(String(process.pid));
    lock.releaseSync();
    expect(lock.held).toBe(false);
    expect(dir.list()).toEqual([]);
    lock.releaseSync(); // does nothing
    expect(lock.acquireSync().held).toBe(true); // can be taken again
    lock.releaseSync();
  });

  test("is refused inside the same process, to another object and to the same one", () => {
    using dir = new TempDir();
    using lock = new Lock({ name: "t", dir: dir.path }).acquireSync();
    for (const other of [new Lock({ name: "t", dir: dir.path }), lock]) {
      const error = caught(() => other.acquireSync());
      expect(error).toBeInstanceOf(CannotAcquireLock);
      expect(error).toMatchObject({
        code: "ELOCKED",
        name: "CannotAcquireLock",
        lock: "t",
        lockfile: dir.file("exclusive_t.lock"),
        holder: { pid: process.pid, alive: true, mode: "exclusive" },
        message: `'t' is already locked by this process (pid ${process.pid})`,
      });
    }
    expect(lock.held).toBe(true);
    using _other = new Lock({ name: "u", dir: dir.path }).acquireSync(); // another name is another lock
  });

  test("is refused while another process holds the lock, which it names; the file of a killed holder is taken over", async () => {
    using dir = new TempDir();
    await using holder = await startHolder(dir, `, label: "nightly"`);
    const lock = new Lock({ name: "t", dir: dir.path });
    expect(caught(() => lock.acquireSync())).toMatchObject({
      holder: { pid: holder.pid, alive: true, label: "nightly" },
    });
    expect(await lock.holder()).toMatchObject({ pid: holder.pid });
    holder.kill("SIGKILL");
    await holder.result;
    expect(readFileSync(lock.lockfile, "utf8")).toStartWith(`${holder.pid}\n`);
    expect(await lock.holder()).toBeNull();
    lock.acquireSync();
    expect(readFileSync(lock.lockfile, "utf8")).toStartWith(`${process.pid}\n`);
    lock.releaseSync();
    expect(dir.list()).toEqual([]);
  });

  test("a relative directory stays the same after a change of directory", () => {
    using dir = new TempDir();
    mkdirSync(dir.file("locks"));
    const before = process.cwd();
    try {
      process.chdir(dir.path);
      const lock = new Lock({ name: "t", dir: "locks" }).acquireSync();
      expect(lock.lockfile).toBe(`${process.cwd()}/locks/exclusive_t.lock`);
      process.chdir("/");
      expect(existsSync(lock.lockfile)).toBe(true);
      lock.releaseSync();
      expect(existsSync(lock.lockfile)).toBe(false);
    } finally {
      process.chdir(before);
    }
  });

  test("wrong options are refused at once", () => {
    expect(() => new Lock({ name: "" })).toThrow("must not be empty");
    expect(() => new Lock({ name: 3 as unknown as string })).toThrow("a lock's name is a string");
    expect(() => new Lock({ name: "t", slots: 0 })).toThrow("slots must be a whole number from 1 to 64");
    expect(() => new Lock({ name: "t", slots: 2, shared: true })).toThrow(TypeError);
  });
});

describe("scope form", () => {
  test("using and await using release at the end of the scope, also when it throws", async () => {
    using dir = new TempDir();
    const options = { name: "t", dir: dir.path };
    {
      using lock = new Lock(options).acquireSync();
      expect(existsSync(lock.lockfile)).toBe(true);
    }
    expect(dir.list()).toEqual([]);
    expect(() => {
      using _ = new Lock(options).acquireSync();
      throw new Error("inside");
    }).toThrow("inside");
    expect(dir.list()).toEqual([]);
    {
      await using lock = await new Lock(options).acquire();
      expect(existsSync(lock.lockfile)).toBe(true);
    }
    expect(dir.list()).toEqual([]);
  });
});

describe("acquire", () => {
  test("without options it refuses at once", async () => {
    using dir = new TempDir();
    using _ = new Lock({ name: "t", dir: dir.path }).acquireSync();
    const error = await new Lock({ name: "t", dir: dir.path }).acquire().catch((e: unknown) => e);
    expect(error).toBeInstanceOf(CannotAcquireLock);
    expect(error).not.toBeInstanceOf(LockTimeout);
    const zero = await new Lock({ name: "t", dir: dir.path })
      .acquire({ timeout: 0 })
      .catch((e: unknown) => e);
    expect(zero).not.toBeInstanceOf(LockTimeout);
  });

  test.each([{ wait: true }, { timeout: "60s" }, { timeout: Number.POSITIVE_INFINITY }, { timeout: "365d" }])(
    "%j waits until another process releases it",
    async (options) => {
      using dir = new TempDir();
      await using holder = await startHolder(dir);
      const waiting = new Lock({ name: "t", dir: dir.path }).acquire(options);
      expect(await Promise.race([waiting, Bun.sleep(50)])).toBeUndefined();
      holder.kill("SIGKILL");
      await (await waiting).release();
      expect(dir.list()).toEqual([]);
    },
  );

  test.each([{ wait: true }, { timeout: Number.POSITIVE_INFINITY }])(
    "%j is refused at once while the program itself holds the lock: it would never end",
    async (options) => {
      using dir = new TempDir();
      const lock = () => new Lock({ name: "t", dir: dir.path });
      await using _ = await lock().acquire(options);
      const message = `'t' is already locked by this process (pid ${process.pid})`;
      for (let i = 0; i < 2; i++)
        expect(
          await lock()
            .acquire(options)
            .catch((e: unknown) => e),
        ).toMatchObject({ message, lock: "t" });
      const slot = () => new Lock({ name: "s", dir: dir.path, slots: 2 });
      await using _first = await slot().acquire(options);
      await using _second = await slot().acquire(options);
      expect(
        await slot()
          .acquire(options)
          .catch((e: unknown) => e),
      ).toBeInstanceOf(CannotAcquireLock);
    },
  );

  test.each([{ timeout: "60s" }, { timeout: "365d" }])(
    "%j waits until the release, also by the same object",
    async (options) => {
      using dir = new TempDir();
      const lock = new Lock({ name: "t", dir: dir.path }).acquireSync();
      const other = new Lock({ name: "t", dir: dir.path });
      let got = false;
      const waiting = other.acquire(options).then(() => {
        got = true;
      });
      await Bun.sleep(50);
      expect(got).toBe(false);
      const again = lock.acquire(options);
      await lock.release();
      await Promise.race([waiting, again]);
      await (got ? other : lock).release();
      await Promise.all([waiting, again]);
      lock.releaseSync();
      other.releaseSync();
      expect(dir.list()).toEqual([]);
    },
  );

  test("LockTimeout names the time and the holder", async () => {
    using dir = new TempDir();
    using _ = new Lock({ name: "t", dir: dir.path }).acquireSync();
    const begun = performance.now();
    const error = await new Lock({ name: "t", dir: dir.path })
      .acquire({ timeout: 60 })
      .catch((e: unknown) => e);
    expect(performance.now() - begun).toBeGreaterThanOrEqual(59);
    expect(error).toBeInstanceOf(LockTimeout);
    expect(error).toBeInstanceOf(CannotAcquireLock);
    expect(error).toMatchObject({
      code: "ETIMEDOUT",
      message: `'t' is still locked after 60ms (by pid ${process.pid}).`,
      holder: { pid: process.pid },
    });
  });

  test("a signal ends the wait with its reason, before and during the wait", async () => {
    using dir = new TempDir();
    const options = { name: "t", dir: dir.path };
    const reason = new Error("not any more");
    expect(await new Lock(options).acquire({ signal: AbortSignal.abort(reason) }).catch((e) => e)).toBe(
      reason,
    );
    expect(dir.list()).toEqual([]); // nothing was taken, though the lock was free
    expect(
      await new Lock(options).acquire({ wait: true, signal: AbortSignal.abort() }).catch((e) => e.name),
    ).toBe("AbortError");
    using _ = new Lock(options).acquireSync();
    const controller = new AbortController();
    const waiting = new Lock(options)
      .acquire({ wait: true, signal: controller.signal })
      .catch((e: unknown) => e);
    await Bun.sleep(30);
    controller.abort(reason);
    expect(await waiting).toBe(reason);
  });

  test("a finished wait does not keep the program alive", async () => {
    using dir = new TempDir();
    await using holder = await startHolder(dir);
    await using waiter = startScript(
      `{ await using _ = await (console.log("begun"), new Lock({ name: "t" })).acquire({ timeout: "1h" }); } console.log("done");`,
      dir,
    );
    await waiter.says("begun");
    holder.kill("SIGKILL");
    expect(await waiter.result).toMatchObject({ status: 0, stdout: "begun\ndone\n" });
    expect(dir.list()).toEqual([]);
  });
});

describe("shared, slots, keep, file", () => {
  test("readers share, a writer is alone, the last reader deletes the file", () => {
    using dir = new TempDir();
    const reader = () => new Lock({ name: "t", dir: dir.path, shared: true });
    const writer = new Lock({ name: "t", dir: dir.path });
    const first = reader().acquireSync();
    const second = reader().acquireSync();
    expect(() => writer.acquireSync()).toThrow(CannotAcquireLock);
    expect(() => first.acquireSync()).toThrow(CannotAcquireLock); // one object, one hold
    first.releaseSync();
    expect(() => writer.acquireSync()).toThrow(CannotAcquireLock);
    second.releaseSync();
    expect(dir.list()).toEqual([]);
    writer.acquireSync();
    expect(() => reader().acquireSync()).toThrow(CannotAcquireLock);
    writer.releaseSync();
  });

  test("readers that come and go refuse no reader", async () => {
    using dir = new TempDir();
    const scripts = Array.from({ length: 4 }, () =>
      startScript(
        `for (let i = 0; i < 500; i++) { using _ = new Lock({ name: "t", shared: true }).acquireSync(); } console.log("done");`,
        dir,
      ),
    );
    for (const script of scripts)
      expect(await script.result).toMatchObject({ status: 0, stdout: "done\n", stderr: "" });
    // Two readers that leave at once may both find the other: then the file stays for the next holder.
    new Lock({ name: "t", dir: dir.path }).acquireSync().releaseSync();
    expect(dir.list()).toEqual([]);
  });

  test("a reader that leaves slowly refuses no reader", async () => {
    using dir = new TempDir();
    const slow = new FileStore({ dir: dir.path }).tryAcquireSync({ name: "t", mode: "shared" })!;
    flock(slow.fd, LOCK.EX | LOCK.NB); // is it the last one?
    await using reader = startScript(
      `console.log("begun"); new Lock({ name: "t", shared: true }).acquireSync(); console.log("done");`,
      dir,
    );
    await reader.says("begun");
    await Bun.sleep(100); // it is in the middle of its looks
    slow.releaseSync();
    expect(await reader.result).toMatchObject({ status: 0, stderr: "" });
    expect(dir.list()).toEqual([]);
  });

  test("slots: N holders at a time, one per object", () => {
    using dir = new TempDir();
    const slot = () => new Lock({ name: "t", dir: dir.path, slots: 2 });
    using first = slot().acquireSync();
    expect(first.lockfile).toBe(dir.file("exclusive_t.1.lock"));
    expect(() => first.acquireSync()).toThrow(CannotAcquireLock);
    const second = slot().acquireSync();
    expect(second.lockfile).toBe(dir.file("exclusive_t.2.lock"));
    expect(() => slot().acquireSync()).toThrow(CannotAcquireLock);
    second.releaseSync();
    slot().acquireSync().releaseSync();
    expect(dir.list()).toEqual(["exclusive_t.1.lock"]);
  });

  test("keep leaves the file, emptied", () => {
    using dir = new TempDir();
    const lock = new Lock({ name: "t", dir: dir.path, keep: true }).acquireSync();
    expect(readFileSync(lock.lockfile, "utf8")).toStartWith(`${process.pid}\n`);
    lock.releaseSync();
    expect(readFileSync(lock.lockfile, "utf8")).toBe("");
  });

  test("file locks a file or a directory as it is", () => {
    using dir = new TempDir();
    writeFileSync(dir.file("data"), "precious");
    for (const file of [dir.file("data"), dir.path]) {
      const lock = new Lock({ name: "t", file }).acquireSync();
      expect(lock.lockfile).toBe(file);
      expect(() => new Lock({ name: "another name", file }).acquireSync()).toThrow(CannotAcquireLock);
      lock.releaseSync();
      new Lock({ name: "t", file }).acquireSync().releaseSync();
    }
    expect(readFileSync(dir.file("data"), "utf8")).toBe("precious");
    expect(dir.list()).toEqual(["data"]);
    symlinkSync("loop", dir.file("loop"));
    for (const file of ["none", "loop"]) // no word of another directory: this file was named
      expect(() => new Lock({ name: "t", file: dir.file(file) }).acquireSync()).toThrow(
        /\(file must name a file or directory that exists and can be read\)$/,
      );
  });
});

describe("die", () => {
  test("names the holder on stderr, and exits with 1", async () => {
    using dir = new TempDir();
    await using holder = await startHolder(dir);
    const script = startScript(`new Lock({ name: "t", die: true }).forever(); console.log("no");`, dir);
    expect(await script.result).toEqual({
      status: 1,
      signal: null,
      stdout: "",
      stderr: `Another 't' process is already running (pid ${holder.pid}).\n`,
    });
    const waiting = startScript(`await new Lock({ name: "t", die: true }).acquire({ timeout: 20 });`, dir);
    expect(await waiting.result).toMatchObject({
      status: 1,
      stderr: `'t' is still locked after 20ms (by pid ${holder.pid}).\n`,
    });
  });
});

test("die, where the program itself holds the lock: the message says so", async () => {
  using dir = new TempDir();
  const script = startScript(
    `new Lock({ name: "t" }).forever(); new Lock({ name: "t", die: true }).acquireSync(); console.log("no");`,
    dir,
  );
  const { status, stdout, stderr } = await script.result;
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toBe(`'t' is already locked by this process (pid ${script.pid})\n`);
});

describe("a Worker that is terminated", () => {
  /** Ends a Worker that has run `code`, and tells whether the program can take the lock `t`. */
  const program = (code: string) => `
    const source = ${JSON.stringify(`import { Lock } from ${JSON.stringify(library)};\n${code}`)};
    const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "application/typescript" })));
    await new Promise((resolve) => { worker.onmessage = resolve; });
    console.log("ready");
    for await (const _ of Bun.stdin.stream()) break;
    worker.terminate();
    const lock = new Lock({ name: "t" });
    for (let i = 0; i < 500; i++) {
      try { lock.acquireSync(); console.log("free"); process.exit(); } catch { await Bun.sleep(10); }
    }`;

  test("while it holds a lock gives the lock back", async () => {
    using dir = new TempDir();
    const code = `new Lock({ name: "t" }).acquireSync(); postMessage(""); setInterval(() => {}, 1000);`;
    await using script = startScript(program(code), dir, { stdin: "go" });
    expect(await script.result).toMatchObject({ status: 0, stdout: "ready\nfree\n" });
  });

  test("while it waits does not leave the lock to the process, out of sight", async () => {
    using dir = new TempDir();
    const holder = await startHolder(dir);
    const code = `new Lock({ name: "t" }).acquire({ wait: true }); setTimeout(() => postMessage(""), 300);`;
    await using script = startScript(program(code), dir, { stdin: "go" });
    await script.says("ready");
    await until(() => waiters(dir.lockfile("t")) === 1, "the Worker to wait");
    holder.kill("SIGKILL");
    expect(await script.result).toMatchObject({ status: 0, stdout: "ready\nfree\n" });
  });
});

describe("a runtime that reloads the program", () => {
  for (const mode of ["--watch", "--hot"]) {
    test(`forever() under bun ${mode} goes on after each save, and ends by a signal`, async () => {
      using dir = new TempDir();
      const file = dir.file("script.ts");
      const save = (version: number) =>
        writeFileSync(
          file,
          `import { Lock } from ${JSON.stringify(library)};
           console.log(new Lock({ name: "t", die: true }).forever().held, ${version});
           setInterval(() => {}, 1000);`,
        );
      save(1);
      await using script = new Process([process.execPath, mode, file], { dir });
      await script.says("true 1");
      for (const version of [2, 3]) {
        save(version);
        await script.says(`true ${version}`);
      }
      expect(() => new Lock({ name: "t", dir: dir.path }).acquireSync()).toThrow(CannotAcquireLock);
      expect(script.stderr).not.toContain("locked");
      script.kill("SIGTERM");
      await until(() => !existsSync(dir.lockfile("t")), "the release");
      script.kill("SIGKILL"); // what watches may live on
    });
  }
});

describe("release on every kind of exit", () => {
  const exits: Record<string, [code: string, status: number]> = {
    "the end of the program": ["", 0],
    "process.exit()": ["process.exit(7);", 7],
    "process.exit() later": ["setTimeout(() => process.exit(7), 5);", 7],
    "process.exitCode": ["process.exitCode = 9;", 9],
    "an uncaught error": [`throw new Error("uncaught");`, 1],
    "an error in a callback": [`setTimeout(() => { throw new Error("uncaught"); }, 5);`, 1],
    "an unhandled rejection": [`Promise.reject(new Error("unhandled"));`, 1],
  };
  for (const [how, [code, status]] of Object.entries(exits)) {
    test(`forever(), and ${how}`, async () => {
      using dir = new TempDir();
      const script = startScript(
        `import { existsSync } from "node:fs";
         console.log(existsSync(new Lock({ name: "t" }).forever().lockfile)); ${code}`,
        dir,
      );
      expect(await script.result).toMatchObject({ status, signal: null, stdout: "true\n" });
      expect(dir.list()).toEqual([]);
    });
  }

  test("a program that exits in the middle of a scope", async () => {
    using dir = new TempDir();
    const script = startScript(`using _ = new Lock({ name: "t" }).acquireSync(); process.exit(3);`, dir);
    expect(await script.result).toMatchObject({ status: 3 });
    expect(dir.list()).toEqual([]);
  });

  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    test(`forever(), and ${signal}: both locks are released, and the signal has its default effect`, async () => {
      using dir = new TempDir();
      await using script = startScript(
        `new Lock({ name: "t" }).forever(); new Lock({ name: "u" }).forever();
         console.log("held"); setInterval(() => {}, 1000);`,
        dir,
      );
      await script.says("held");
      expect(dir.list()).toEqual(["exclusive_t.lock", "exclusive_u.lock"]);
      script.kill(signal);
      expect(await script.result).toMatchObject({ status: null, signal });
      expect(dir.list()).toEqual([]);
    });

    for (const how of ["on", "once"] as const) {
      test(`forever(), and a handler of the program for ${signal}, by process.${how}`, async () => {
        using dir = new TempDir();
        await using script = startScript(
          `import { existsSync } from "node:fs";
           const own = async () => {
             await Bun.sleep(20);
             console.log("still held:", existsSync(lock.lockfile));
             process.exit(5);
           };
           process.${how}(${JSON.stringify(signal)}, own);
           const lock = new Lock({ name: "t" }).forever();
           console.log("ready"); setInterval(() => {}, 1000);`,
          dir,
        );
        await script.says("ready");
        script.kill(signal);
        expect(await script.result).toMatchObject({ status: 5, stdout: "ready\nstill held: true\n" });
        expect(dir.list()).toEqual([]);
      });
    }
  }

  test("forever() under nohup still ignores SIGHUP", async () => {
    using dir = new TempDir();
    await using script = startScript(
      `new Lock({ name: "t" }).forever();
       process.kill(process.pid, "SIGHUP");
       await Bun.sleep(50); console.log("alive"); setInterval(() => {}, 1000);`,
      dir,
      { prefix: ["nohup"] },
    );
    await script.says("alive");
    expect(dir.list()).toEqual(["exclusive_t.lock"]);
    script.kill("SIGTERM");
    expect(await script.result).toMatchObject({ signal: "SIGTERM" });
    expect(dir.list()).toEqual([]);
  });

  test("SIGKILL leaves the file only: the lock is free", async () => {
    using dir = new TempDir();
    await using holder = await startHolder(dir);
    holder.kill("SIGKILL");
    await holder.result;
    expect(dir.list()).toEqual(["exclusive_t.lock"]);
    new Lock({ name: "t", dir: dir.path }).acquireSync().releaseSync();
    expect(dir.list()).toEqual([]);
  });
});
