import { expect, test } from "bun:test";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { canUnshare, unshare } from "../support/namespaces.ts";
import { binary } from "../support/paths.ts";
import { alive, startTimeOf } from "../support/proc.ts";
import { command, commandOf, exclusive, hold, Process, start, startScript } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const stop = (dir: TempDir, ...args: string[]) => exclusive(["stop", ...args], { dir });

/** Holds a lock with a command that ignores SIGTERM. */
async function holdStubborn(dir: TempDir, name: string, ...options: string[]): Promise<Process> {
  const script = "trap '' TERM INT; echo begun; while :; do sleep 0.05; done";
  const holder = start(["run", ...options, name, "--", "sh", "-c", script], { dir });
  await holder.says("begun");
  return holder;
}

test("the holder gets SIGTERM, and the lock becomes free", async () => {
  using dir = new TempDir();
  const script = "trap 'echo got TERM; exit 7' TERM; echo begun; while :; do sleep 0.05; done";
  await using holder = start(["run", "job", "--", "sh", "-c", script], { dir });
  await holder.says("begun");
  expect(await stop(dir, "job")).toMatchObject({
    status: 0,
    stdout: "",
    stderr: `exclusive: stopped pid ${holder.pid}: 'job' is free\n`,
  });
  expect(await holder.result).toMatchObject({ status: 7, stdout: "begun\ngot TERM\n" });
  expect(dir.list()).toEqual([]);
});

test("--signal: by name or number", async () => {
  using dir = new TempDir();
  for (const signal of ["INT", "SIGINT", "int", "2"]) {
    const script = "trap 'echo got INT; exit 0' INT; echo begun; while :; do sleep 0.05; done";
    await using holder = start(["run", "job", "--", "sh", "-c", script], { dir });
    await holder.says("begun");
    expect(await stop(dir, "--signal", signal, "job")).toMatchObject({ status: 0 });
    expect((await holder.result).stdout).toContain("got INT");
  }
});

test.if(process.platform === "linux" && required("python3", "python3"))(
  "--signal takes real-time signals, as systemd's SIGRTMIN+3 that powers a container off",
  async () => {
    using dir = new TempDir();
    for (const signal of ["RTMIN+3", "SIGRTMAX-27", "37"]) {
      const script =
        "import signal, sys; signal.signal(37, lambda *_: sys.exit(7)); print('begun', flush=True)\nwhile True: signal.pause()";
      await using holder = start(["run", "job", "--", "python3", "-ISc", script], { dir });
      await holder.says("begun");
      expect(await stop(dir, "--signal", signal, "job")).toMatchObject({ status: 0 });
      expect(await holder.result).toMatchObject({ status: 7 });
    }
  },
);

test("SIGKILL follows after --grace, for the command too; nothing is left", async () => {
  using dir = new TempDir();
  await using holder = await holdStubborn(dir, "job");
  const pid = commandOf(holder);
  const told = await stop(dir, "--grace", "100ms", "--json", "job");
  expect(told).toMatchObject({ status: 0, stderr: "" });
  expect(JSON.parse(told.stdout)).toMatchObject({
    name: "job",
    state: "free",
    stopped: [holder.pid],
    left: [],
  });
  expect(await holder.result).toMatchObject({ signal: "SIGKILL" });
  expect(alive(pid)).toBe(false);
  expect(dir.list()).toEqual([]);
});

test("--signal KILL: at once", async () => {
  using dir = new TempDir();
  await using holder = await holdStubborn(dir, "job");
  expect(await stop(dir, "-s", "KILL", "--grace", "1h", "job")).toMatchObject({ status: 0 });
  expect(await holder.result).toMatchObject({ signal: "SIGKILL" });
});

test("a stopped holder is continued, so that it can end", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "job");
  holder.kill("SIGSTOP");
  await until(
    async () => (await command(["ps", "-o", "state=", "-p", String(holder.pid)])).stdout.startsWith("T"),
    "it stops",
  );
  expect(await stop(dir, "--grace", "1h", "job")).toMatchObject({ status: 0 });
  expect(await holder.result).toMatchObject({ signal: "SIGTERM" });
});

test("a command whose wrapper was killed, and the children of a --exec command", async () => {
  using dir = new TempDir();
  const holder = await hold(dir, "job");
  const pid = commandOf(holder);
  holder.kill("SIGKILL");
  await holder.result;
  expect(await stop(dir, "job")).toMatchObject({
    status: 0,
    stderr: expect.stringContaining(`stopped pid ${pid}`),
  });
  expect(alive(pid)).toBe(false);

  const exec = start(["run", "--exec", "other", "--", "sh", "-c", "sleep 600 & echo begun $!; wait"], {
    dir,
  });
  await exec.says("begun");
  const child = Number(/begun (\d+)/.exec(exec.stdout)![1]);
  expect(await stop(dir, "--grace", "100ms", "other")).toMatchObject({ status: 0 });
  await until(() => !alive(child), "the child is gone");
});

test.if(required("python3", "python3"))(
  "a command whose wrapper was killed has the whole grace period, and does not outlive it",
  async () => {
    using dir = new TempDir();
    // No process but the command itself: a child that ends would be waited for.
    const script =
      'import os,signal,sys,time; signal.signal(15, eval(sys.argv[1])); print("begun", flush=True); time.sleep(60)';
    const orphan = async (handler: string) => {
      const holder = start(["run", "job", "--", "python3", "-ISc", script, handler], { dir });
      await holder.says("begun");
      const pid = commandOf(holder);
      holder.kill("SIGKILL");
      await holder.result;
      return pid;
    };
    const stubborn = await orphan("signal.SIG_IGN");
    expect(await stop(dir, "--grace", "300ms", "job")).toMatchObject({
      status: 0,
      stderr: `exclusive: stopped pid ${stubborn}: 'job' is free\n`,
    });
    expect(alive(stubborn)).toBe(false);
    const tidy = await orphan("lambda *_: (time.sleep(1), os._exit(0))");
    expect(await stop(dir, "--grace", "1m", "job")).toMatchObject({ status: 0 });
    expect(alive(tidy)).toBe(false);
  },
);

test("all slots and all readers are stopped; one slot by its name", async () => {
  using dir = new TempDir();
  const slots = [await hold(dir, "convert", "--slots", "3"), await hold(dir, "convert", "--slots", "3")];
  const readers = [
    await hold(dir, "index", "-s"),
    await hold(dir, "index", "-s"),
    await hold(dir, "index", "-s"),
  ];
  expect(await stop(dir, "convert.2")).toMatchObject({ status: 0 });
  expect((await slots[1]!.result).signal).toBe("SIGTERM");
  expect(slots[0]!.running).toBe(true);
  for (const name of ["convert", "index"]) expect(await stop(dir, name)).toMatchObject({ status: 0 });
  for (const holder of [...slots, ...readers]) expect((await holder.result).signal).toBe("SIGTERM");
  expect(dir.list()).toEqual([]);
});

test("a waiter is not stopped: it runs next", async () => {
  using dir = new TempDir();
  await using _holder = await hold(dir, "job");
  await using next = start(["run", "--wait", "job", "--", "sh", "-c", "echo begun; exec sleep 600"], { dir });
  await until(async () => {
    return JSON.parse((await exclusive(["status", "--json", "job"], { dir })).stdout).waiters === 1;
  }, "a waiter");
  expect(await stop(dir, "job")).toMatchObject({ status: 0 });
  await next.says("begun");
  expect(await exclusive(["status", "job"], { dir })).toMatchObject({
    stdout: expect.stringContaining(`pid ${next.pid}`),
  });
});

test("a free lock: nothing to do, status 0", async () => {
  using dir = new TempDir();
  expect(await stop(dir, "job")).toMatchObject({ status: 0, stderr: "exclusive: 'job' is free\n" });
  expect(dir.list()).toEqual([]);
});

test("a record that names a process without the lock is refused", async () => {
  using dir = new TempDir();
  await using victim = new Process(["sleep", "600"]);
  // Another program holds the lock, so the kernel confirms no process that a record names.
  await using holder = new Process([
    "flock",
    dir.file("exclusive_job.lock"),
    "sh",
    "-c",
    "echo begun; exec sleep 600",
  ]);
  await holder.says("begun");
  const real = await recordOf(victim.pid);
  const forged = [
    `${victim.pid}\n`,
    `${victim.pid}\n${JSON.stringify(real)}\n`, // right, but the process does not have the lock
    `${victim.pid}\n${JSON.stringify({ ...real, started: "1" })}\n`, // a reused pid
    `${victim.pid}\n${JSON.stringify({ ...real, host: "elsewhere", boot: "another" })}\n`,
    `${victim.pid}\n${JSON.stringify({ ...real, pidns: "1" })}\n`,
    `${victim.pid}\n${JSON.stringify({ ...real, command: holder.pid })}\n`,
    "",
  ];
  for (const text of forged) {
    writeFileSync(dir.file("exclusive_job.lock"), text);
    expect(await stop(dir, "job")).toMatchObject({
      status: 77,
      stderr: expect.stringContaining("is not stopped"),
    });
  }
  expect(victim.running).toBe(true);
  expect(holder.running).toBe(true);
});

/** The record that this process would write if it took the lock. */
async function recordOf(pid: number) {
  return {
    version: 1,
    host: hostname(),
    boot: (await Bun.file("/proc/sys/kernel/random/boot_id").text()).trim(),
    pidns: /\d+/.exec((await command(["readlink", "/proc/self/ns/pid"])).stdout)![0],
    started: startTimeOf(pid),
    acquired: new Date().toISOString(),
    mode: "exclusive",
  };
}

test("a forged command pid in a valid record is not killed", async () => {
  using dir = new TempDir();
  await using victim = new Process(["sleep", "600"]);
  await using holder = startScript(
    `process.on("SIGTERM", () => {}); new Lock({ name: "job" }).acquireSync(); console.log("begun"); setInterval(() => {}, 1e6)`,
    dir,
  );
  await holder.says("begun");
  const [pid, line] = (await Bun.file(dir.file("exclusive_job.lock")).text()).split("\n");
  writeFileSync(
    dir.file("exclusive_job.lock"),
    `${pid}\n${JSON.stringify({ ...JSON.parse(line!), command: victim.pid })}\n`,
  );
  expect(await stop(dir, "--grace", "50ms", "job")).toMatchObject({ status: 0 });
  expect(await holder.result).toMatchObject({ signal: "SIGKILL" });
  expect(victim.running).toBe(true);
});

test.if(canUnshare())(
  "refused: a holder in a pid namespace that we cannot see; not one that we can",
  async () => {
    using dir = new TempDir();
    await using outside = await hold(dir, "job");
    const asked = await command([...unshare, binary, "stop", "job"], { dir });
    expect(asked).toMatchObject({ status: 77, stderr: expect.stringContaining("in another pid namespace") });
    expect(outside.running).toBe(true);

    await using inside = new Process(
      [...unshare, binary, "run", "in", "--", "sh", "-c", "echo begun; exec sleep 600"],
      { dir },
    );
    await inside.says("begun");
    expect(await stop(dir, "in")).toMatchObject({ status: 0 });
    expect(dir.list()).toEqual(["exclusive_job.lock"]);
  },
);

test.if(process.getuid?.() === 0 && required("setpriv", "util-linux"))(
  "refused: another user's process",
  async () => {
    using dir = new TempDir();
    (await import("node:fs")).chmodSync(dir.path, 0o755);
    await using holder = await hold(dir, "job");
    const asked = await command(
      ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binary, "stop", "job"],
      { dir },
    );
    expect(asked.status).toBe(77);
    expect(holder.running).toBe(true);
  },
);

test("wrong usage", async () => {
  using dir = new TempDir();
  expect(await stop(dir)).toMatchObject({ status: 64 });
  expect(await stop(dir, "-s", "TREM", "job")).toMatchObject({
    status: 64,
    stderr: expect.stringContaining("did you mean TERM?"),
  });
  expect(await stop(dir, "-s", "0", "job")).toMatchObject({ status: 64 });
  expect(await stop(dir, "-g", "x", "job")).toMatchObject({ status: 64 });
});

test("run --if-held replace: the new command starts after the old one has ended", async () => {
  using dir = new TempDir();
  const script =
    "trap 'sleep 0.3; echo old ended >> log; exit' TERM; echo begun; while :; do sleep 0.05; done";
  await using old = start(["run", "job", "--", "sh", "-c", script], { dir, cwd: dir.path });
  await old.says("begun");
  const replacing = await exclusive(
    ["run", "--if-held", "replace", "job", "--", "sh", "-c", "echo new began >> log"],
    {
      dir,
      cwd: dir.path,
    },
  );
  expect(replacing.status).toBe(0);
  expect(await Bun.file(dir.file("log")).text()).toBe("old ended\nnew began\n");
  expect(dir.list()).toEqual(["log"]);
});

test("replace: of many at once one stays, and each other is ended", async () => {
  using dir = new TempDir();
  await using first = await hold(dir, "job");
  const all = Array.from({ length: 5 }, () => {
    return start(["run", "--if-held", "replace", "job", "--", "sh", "-c", "echo begun; exec sleep 600"], {
      dir,
    });
  });
  expect((await first.result).signal).toBe("SIGTERM");
  await until(() => all.filter((one) => one.running).length === 1, "one is left");
  const last = all.find((one) => one.running)!;
  await last.says("begun");
  expect((await exclusive(["status", "job"], { dir })).stdout).toContain(`pid ${last.pid}`);
  last.kill();
  await last.result;
});

test("replace: a holder that cannot be stopped is not replaced; --timeout; a signal while it stops the other", async () => {
  using dir = new TempDir();
  await using foreign = new Process([
    "flock",
    dir.file("exclusive_foreign.lock"),
    "sh",
    "-c",
    "echo begun; exec sleep 600",
  ]);
  await foreign.says("begun");
  const refused = await exclusive(["run", "--if-held", "replace", "foreign", "--", "echo", "no"], { dir });
  expect(refused).toMatchObject({
    status: 75,
    stdout: "",
    stderr: expect.stringContaining("is not stopped"),
  });

  await using _stubborn = await holdStubborn(dir, "job");
  const late = await exclusive(["run", "--if-held", "replace", "-t", "100ms", "job", "--", "echo", "no"], {
    dir,
  });
  expect(late).toMatchObject({ status: 75, stdout: "" });
  await using waiting = start(["run", "-v", "--if-held", "replace", "job", "--", "echo", "no"], { dir });
  await until(() => waiting.stderr.includes("waiting for 'job'"), "it waits");
  waiting.kill("SIGTERM");
  expect(await waiting.result).toMatchObject({ signal: "SIGTERM", stdout: "" });
  expect(await stop(dir, "-s", "KILL", "job")).toMatchObject({ status: 0 });
});

test.if(process.platform === "linux")(
  "a holder whose file was removed is stopped, with all that has its open file: before the file is there again and after",
  async () => {
    using dir = new TempDir();
    const path = dir.lockfile("t");
    await using become = start(["run", "--exec", "t", "--", "sh", "-c", "echo begun; exec sleep 600"], {
      dir,
    });
    await become.says("begun");
    rmSync(path); // no wrapper takes it again
    expect(await exclusive(["stop", "t"], { dir })).toMatchObject({ status: 0 });
    expect(await become.result).toMatchObject({ signal: "SIGTERM" });

    const script = "(setsid env -i /bin/sleep 600 & echo $!); exec /bin/sleep 600";
    await using holder = start(["run", "t", "--", "sh", "-c", script], { dir });
    await holder.says("\n");
    const left = Number(holder.stdout);
    rmSync(path);
    await until(() => existsSync(path), "the file is there again");
    expect(await exclusive(["stop", "t"], { dir })).toMatchObject({ status: 0 });
    expect(alive(left)).toBe(false);
    expect(await holder.result).toMatchObject({ signal: "SIGTERM" });
  },
);

test.if(process.platform === "linux")(
  "what a holder has left behind is known though the file was removed: a keeper, and a command without its wrapper",
  async () => {
    using dir = new TempDir();
    expect(await exclusive(["hold", "kept"], { dir })).toMatchObject({ status: 0 });
    expect(await exclusive(["run", "--hold-for", "1h", "kept-for", "--", "true"], { dir })).toMatchObject({
      status: 0,
    });
    const script = "sleep 600 & echo begun; wait";
    await using orphan = start(["run", "orphan", "--", "sh", "-c", script], { dir });
    await orphan.says("begun");
    orphan.kill("SIGKILL");
    await until(() => !alive(orphan.pid), "the wrapper to be gone");
    for (const name of ["kept", "kept-for", "orphan"]) {
      const { holder } = JSON.parse((await exclusive(["status", "--json", name], { dir })).stdout);
      rmSync(dir.lockfile(name));
      const now = await exclusive(["status", name], { dir });
      expect(now).toMatchObject({ status: 0, stdout: expect.stringContaining(String(holder.commandPid)) });
      expect(await exclusive(["stop", name], { dir })).toMatchObject({ status: 0 });
      expect(alive(holder.commandPid)).toBe(false);
      expect(await exclusive(["status", name], { dir })).toMatchObject({ status: 3 });
    }
  },
);
