/** What run does when the lock is held, and the options that say which lock it is. */
import { expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { binary } from "../support/paths.ts";
import { waiters } from "../support/proc.ts";
import { command, exclusive, hold, Process, start } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

test("fail, the default: 75 and the holder", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "t", "--label", "the first");
  for (const options of [[], ["--if-held", "fail"], ["-t", "0"]]) {
    const refused = await exclusive(["run", ...options, "t", "--", "echo", "no"], { dir });
    expect(refused).toMatchObject({ status: 75, stdout: "" });
    expect(refused.stderr).toMatch(
      new RegExp(`^exclusive: 't' is held by pid ${holder.pid} for \\d+s \\(the first\\): sleep 600\\n$`),
    );
  }
});

test("skip: exit 0 without a word, and the command has not run; -v says why", async () => {
  using dir = new TempDir();
  await using _holder = await hold(dir, "t");
  const skipped = await exclusive(["run", "--if-held", "skip", "t", "--", "echo", "no"], { dir });
  expect(skipped).toMatchObject({ status: 0, stdout: "", stderr: "" });
  const verbose = await exclusive(["run", "-v", "--if-held", "skip", "t", "--", "echo", "no"], { dir });
  expect(verbose).toMatchObject({ status: 0, stdout: "" });
  expect(verbose.stderr).toMatch(
    /^exclusive: lock directory: .*\nexclusive: skipped: 't' has been running for \d+s \(pid \d+: .*sleep 600'?\)\n$/,
  );
  // With a time limit it is skipped when the time is over.
  expect(await exclusive(["run", "--if-held=skip", "-t", "0.2", "-q", "t", "echo", "no"], { dir })).toEqual({
    status: 0,
    signal: null,
    stdout: "",
    stderr: "",
  });
});

/** A script that waits until SIGUSR1 and SIGTERM are pending in it: they are forwarded when it has begun. */
const PENDING = 'until grep -q "^ShdPnd:.*4200$" /proc/$$/status; do sleep 0.02; done; echo both';

/** The files of a lock and of its queue head. */
const headFile = (dir: TempDir) => dir.file("exclusive_t%00next.lock");

/** Starts runs with coalesce, and waits until one waits for the lock and the others wait behind it. */
async function queue(dir: TempDir, count: number, ...options: string[]): Promise<Process[]> {
  const job = [
    "run",
    "--if-held",
    "coalesce",
    ...options,
    "t",
    "--",
    "sh",
    "-c",
    `echo ran >>${dir.file("log")}`,
  ];
  const first = start(job, { dir });
  await until(() => waiters(dir.lockfile("t")) === 1, "the first to wait");
  const all = [first, ...Array.from({ length: count - 1 }, () => start(job, { dir }))];
  await until(() => waiters(headFile(dir)) === count - 1, "the others to wait behind it");
  return all;
}

test("coalesce: of 20 that start while it is held one waits and runs, 19 exit 0 as it begins", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "t");
  const all = await queue(dir, 20, "-v");
  expect(all.every((one) => one.running)).toBe(true); // no run has begun that does their work
  holder.kill();
  const results = await Promise.all(all.map((one) => one.result));
  expect(results.map(({ status }) => status)).toEqual(Array(20).fill(0));
  expect(readFileSync(dir.file("log"), "utf8")).toBe("ran\n");
  expect(
    results.filter(({ stderr }) => stderr.includes("another run was already queued, and has begun")).length,
  ).toBe(19);
  expect(dir.list()).toEqual(["log"]);
});

test("a signal that was blocked at the start of a waiter neither ends it nor is lost", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "t", "--slots", "1");
  const blocked = ["env", "--block-signal=TERM", "--block-signal=USR1", binary];
  const waiter = new Process(
    [...blocked, "run", "--slots", "1", "--wait", "t", "--", "bash", "-c", PENDING],
    {
      dir,
    },
  );
  await until(() => waiters(dir.lockfile("t.1")) === 1, "it waits");
  waiter.kill("SIGTERM");
  waiter.kill("SIGUSR1");
  await until(() => dir.list().length === 2, "it still waits");
  holder.kill();
  expect(await waiter.result).toMatchObject({ status: 0, stdout: "both\n" });
});

for (const signal of ["SIGKILL", "SIGTERM"] as const) {
  test(`coalesce: the waiter is ended by ${signal}: the next takes its place, and nobody is told 0 without a run`, async () => {
    using dir = new TempDir();
    await using holder = await hold(dir, "t");
    const [first, ...others] = await queue(dir, 4);
    first!.kill(signal);
    expect(await first!.result).toMatchObject({ signal });
    await until(() => waiters(dir.lockfile("t")) === 1, "the next to wait");
    expect(others.every((one) => one.running)).toBe(true);
    holder.kill();
    for (const { result } of others) expect(await result).toMatchObject({ status: 0 });
    expect(readFileSync(dir.file("log"), "utf8")).toBe("ran\n");
    expect(dir.list()).toEqual(["log"]);
  });
}

test("coalesce: the waiter gives up after its time: the next takes its place", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "t");
  const [hasty] = await queue(dir, 1, "-t", "1");
  const job = ["run", "--if-held", "coalesce", "t", "--", "echo", "ran"];
  await using next = start(job, { dir });
  expect(await hasty!.result).toMatchObject({ status: 75 });
  await until(() => waiters(dir.lockfile("t")) === 1, "the next to wait");
  holder.kill();
  expect(await next.result).toMatchObject({ status: 0, stdout: "ran\n" });
  expect(dir.list()).toEqual([]);
});

test.each(["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGALRM", "SIGXCPU"] as const)(
  "a waiter for a slot that is ended by %s leaves no file of the queue",
  async (signal) => {
    using dir = new TempDir();
    await using holder = await hold(dir, "t", "--slots", "1");
    await using waiting = start(["run", "-q", "--slots", "1", "--wait", "t", "--", "true"], { dir });
    await until(() => waiters(dir.lockfile("t.1")) === 1, "a waiter");
    waiting.kill(signal);
    expect(await waiting.result).toMatchObject({ signal });
    expect(dir.list()).toEqual(["exclusive_t.1.lock"]);
    holder.kill();
    await holder.result;
  },
);

test("coalesce: a run that arrives while the former waiter is running waits for a run of its own", async () => {
  using dir = new TempDir();
  const job = (text: string) =>
    start(["run", "--if-held", "coalesce", "t", "--", "sh", "-c", `echo ${text}; exec sleep 60`], { dir });
  await using first = job("first");
  await first.says("first");
  await using second = job("second");
  await until(() => waiters(dir.lockfile("t")) === 1, "a waiter");
  first.kill();
  await second.says("second");
  await using third = job("third");
  await until(() => waiters(dir.lockfile("t")) === 1, "a waiter");
  second.kill();
  await third.says("third");
  third.kill();
  await third.result;
  expect(dir.list()).toEqual([]);
});

test("coalesce with a time limit: 75 when the time is over", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "t");
  const late = await exclusive(["run", "--if-held", "coalesce", "-t", "0.2", "t", "true"], { dir });
  expect(late.status).toBe(75);
  holder.kill();
  await holder.result;
  expect(dir.list()).toEqual([]);
});

test("--shared: beside other shared locks, never beside an exclusive one", async () => {
  using dir = new TempDir();
  await using one = await hold(dir, "t", "--shared");
  await using two = await hold(dir, "t", "-s");
  expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 75 });
  one.kill();
  await one.result;
  expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 75 });
  await using writer = start(["run", "-w", "t", "--", "sh", "-c", "echo begun; exec sleep 60"], { dir });
  await until(() => waiters(dir.lockfile("t")) === 1, "the writer to wait");
  two.kill();
  await writer.says("begun");
  expect(await exclusive(["run", "-s", "t", "true"], { dir })).toMatchObject({ status: 75 });
  writer.kill();
  await writer.result;
  expect(dir.list()).toEqual([]);
});

test("--slots 3 with 20 commands: never 4 at once, always 3 while enough wait", async () => {
  using dir = new TempDir();
  const events = dir.file("events");
  writeFileSync(events, "");
  const gate = dir.file("gate");
  // Each command logs its begin and end, and ends when the test removes its gate.
  const script = `echo "+ $1" >>${events}; : >${gate}.$1; while [ -e ${gate}.$1 ]; do sleep 0.02; done; echo "- $1" >>${events}`;
  const all = Array.from({ length: 20 }, (_, i) =>
    start(["run", "--slots", "3", "--wait", "-q", "t", "--", "sh", "-c", script, "sh", String(i)], { dir }),
  );
  const read = () => readFileSync(events, "utf8").split("\n").filter(Boolean);
  for (let done = 0; done < 20; done++) {
    const expected = Math.min(20, done + 3);
    await until(
      () => read().filter((line) => line[0] === "+").length === expected,
      `${expected} to have begun`,
    );
    const running = new Set<string>();
    for (const line of read()) {
      if (line[0] === "+") running.add(line.slice(2));
      else running.delete(line.slice(2));
      expect(running.size).toBeLessThanOrEqual(3);
    }
    expect(running.size).toBe(expected - done);
    const [next] = running;
    await until(() => dir.list().includes(`gate.${next}`), "its gate");
    await Bun.file(`${gate}.${next}`).delete();
    await until(() => read().includes(`- ${next}`), "its end");
  }
  for (const { status } of await Promise.all(all.map((one) => one.result))) expect(status).toBe(0);
  expect(dir.list()).toEqual(["events"]);
});

test("--slots: refused when all are taken; the slot of a killed holder is free", async () => {
  using dir = new TempDir();
  await using one = await hold(dir, "t", "--slots", "2");
  await using _two = await hold(dir, "t", "--slots=2");
  expect(dir.list()).toEqual(["exclusive_t.1.lock", "exclusive_t.2.lock"]);
  expect(await exclusive(["run", "--slots", "2", "t", "true"], { dir })).toMatchObject({ status: 75 });
  one.kill();
  await one.result;
  const third = await exclusive(["run", "--slots", "2", "t", "--", "sh", "-c", "echo $EXCLUSIVE_LOCKFILE"], {
    dir,
  });
  expect(third).toMatchObject({ status: 0, stdout: `${dir.lockfile("t.1")}\n` });
});

test("--keep leaves the file, emptied, and is the same lock for flock(1)", async () => {
  using dir = new TempDir();
  const file = dir.lockfile("t");
  expect(await exclusive(["run", "--keep", "t", "true"], { dir })).toMatchObject({ status: 0 });
  expect(readFileSync(file, "utf8")).toBe("");
  const inode = statSync(file).ino;
  await using _holder = await hold(dir, "t", "--keep");
  expect(statSync(file).ino).toBe(inode);
  if (required("flock", "util-linux")) {
    expect(await command(["flock", "-n", file, "true"])).toMatchObject({ status: 1 });
  }
});

test.if(required("flock", "util-linux"))(
  "--file: a file and a directory, shared with flock(1), never written to nor deleted",
  async () => {
    using dir = new TempDir();
    using other = new TempDir();
    const file = other.file("data");
    writeFileSync(file, "precious");
    chmodSync(file, 0o444);
    const folder = other.file("folder");
    mkdirSync(folder);
    for (const path of [file, folder]) {
      const before = statSync(path, { bigint: true });
      await using holder = await hold(dir, "t", "--file", path);
      expect(await command(["flock", "-n", path, "true"])).toMatchObject({ status: 1 });
      expect(await exclusive(["run", "--file", path, "other-name", "true"], { dir })).toMatchObject({
        status: 75,
      });
      holder.kill();
      await holder.result;
      // The other way round, with a wait for the end of flock(1).
      await using flock = new Process(["flock", path, "sh", "-c", "echo begun; exec sleep 60"]);
      await flock.says("begun");
      expect(await exclusive(["run", "--file", path, "t", "true"], { dir })).toMatchObject({ status: 75 });
      await using waiting = start(["run", "-w", "--file", path, "t", "echo", "mine"], { dir });
      await until(() => waiters(path) === 1, "the waiter");
      await command(["pkill", "-P", String(flock.pid)]);
      expect(await waiting.result).toMatchObject({ status: 0, stdout: "mine\n" });
      const after = statSync(path, { bigint: true });
      expect([after.ino, after.mtimeNs, after.ctimeNs, after.size]).toEqual([
        before.ino,
        before.mtimeNs,
        before.ctimeNs,
        before.size,
      ]);
    }
    expect(readFileSync(file, "utf8")).toBe("precious");
    expect(other.list()).toEqual(["data", "folder"]);
    expect(dir.list()).toEqual([]);
    const absent = await exclusive(["run", "--file", other.file("absent"), "t", "true"], { dir });
    expect(absent).toMatchObject({ status: 73 });
    expect(other.list()).toEqual(["data", "folder"]);
  },
);

test("-E: another exit status for held, and only for held", async () => {
  using dir = new TempDir();
  await using _holder = await hold(dir, "t");
  for (const options of [["-E", "9"], ["-E9"], ["--conflict-exit-code=9"]]) {
    expect(await exclusive(["run", ...options, "t", "true"], { dir })).toMatchObject({ status: 9 });
    expect(await exclusive(["run", ...options, "-t", "0.1", "t", "true"], { dir })).toMatchObject({
      status: 9,
    });
    expect(await exclusive(["run", ...options, "u", "sh", "-c", "exit 3"], { dir })).toMatchObject({
      status: 3,
    });
    expect(await exclusive(["run", ...options, "u", "no-such-command"], { dir })).toMatchObject({
      status: 127,
    });
  }
  for (const wrong of ["256", "-1", "x", ""])
    expect(await exclusive(["run", `-E${wrong}`, "t", "true"], { dir })).toMatchObject({
      status: wrong === "" ? 64 : 64,
    });
});

test("--label is in the record and in the messages of other runs", async () => {
  using dir = new TempDir();
  await using _holder = await hold(dir, "t", "--label", "née\n\x1b[31m'");
  const record = JSON.parse(readFileSync(dir.lockfile("t"), "utf8").split("\n")[1]!);
  expect(record.label).toBe("née\n\x1b[31m'");
  const { stderr } = await exclusive(["run", "t", "true"], { dir });
  expect(stderr).toContain("(née\\x0a\\x1b[31m')");
  expect(stderr).not.toContain("\x1b");
});

test("--dir over EXCLUSIVE_DIR over the default", async () => {
  using one = new TempDir();
  using two = new TempDir();
  const where = async (...options: string[]) =>
    (
      await exclusive(["run", ...options, "t", "--", "sh", "-c", "echo $EXCLUSIVE_LOCKFILE"], { dir: one })
    ).stdout.trim();
  expect(await where()).toBe(one.lockfile("t"));
  expect(await where("--dir", two.path)).toBe(two.lockfile("t"));
  expect(one.list().concat(two.list())).toEqual([]);
});

test("-q prints nothing, -v reports the directory, the acquire and the release; so does EXCLUSIVE_LOG", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "t");
  expect(await exclusive(["run", "-q", "t", "true"], { dir })).toMatchObject({
    status: 75,
    stdout: "",
    stderr: "",
  });
  expect(await exclusive(["run", "-qt", "0.5", "t", "true"], { dir })).toMatchObject({
    status: 75,
    stdout: "",
    stderr: "",
  });
  holder.kill();
  await holder.result;
  expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 0, stdout: "", stderr: "" });
  const { stdout, stderr } = await exclusive(["run", "-v", "t", "echo", "mine"], { dir });
  expect(stdout).toBe("mine\n");
  const logged = await exclusive(["run", "t", "echo", "mine"], { dir, env: { EXCLUSIVE_LOG: "info" } });
  expect(logged.stderr).toMatch(/acquired 't'.*\n.*released 't'/);
  expect(stderr).toMatch(
    /^exclusive: lock directory: .* \(EXCLUSIVE_DIR is set\)\nexclusive: acquired 't' after [\d.]+m?s \(.*exclusive_t.lock\)\nexclusive: released 't' after [\d.]+m?s\n$/,
  );
});

test("--log-format json: one object a line, with waitSeconds and holdSeconds", async () => {
  using dir = new TempDir();
  const events = async (...args: string[]) => {
    const { stderr } = await exclusive(["run", "--log-format", "json", ...args], { dir });
    return stderr
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  };
  const free = await events("t", "sh", "-c", "sleep 0.3; exit 4");
  expect(free.map(({ event }) => event)).toEqual(["acquired", "released"]);
  expect(free[0]).toMatchObject({ name: "t", lockfile: dir.lockfile("t"), waitSeconds: expect.any(Number) });
  expect(free[1]).toMatchObject({ name: "t", exitCode: 4 });
  expect(free[1]!.holdSeconds).toBeGreaterThanOrEqual(0.3);
  expect(free[1]!.holdSeconds).toBeLessThan(30);
  expect(String(free[1]!.holdSeconds)).toMatch(/^\d+(\.\d{1,3})?$/);
  expect(new Date(String(free[1]!.time)).getTime()).toBeGreaterThan(
    new Date(String(free[0]!.time)).getTime(),
  );
  expect((await events("t", "sh", "-c", "kill -9 $$"))[1]).toMatchObject({
    event: "released",
    signal: "SIGKILL",
  });

  await using holder = await hold(dir, "t", "--label", "it");
  const [refused, ...none] = await events("t", "true");
  expect(refused).toMatchObject({
    event: "refused",
    holder: { pid: holder.pid, label: "it" },
    waitSeconds: expect.any(Number),
  });
  expect(none).toEqual([]);
  expect(await events("--if-held", "skip", "t", "true")).toMatchObject([{ event: "skipped" }]);
  const late = await events("-t", "0.6", "t", "true");
  expect(late.map(({ event }) => event)).toEqual(["waiting", "refused"]);
  expect(late[1]!.waitSeconds).toBeGreaterThanOrEqual(0.6);
  await using waiting = start(["run", "-w", "--log-format=json", "t", "true"], { dir });
  await until(() => waiting.stderr.includes("waiting"), "the event");
  holder.kill();
  const { stderr } = await waiting.result;
  const told = stderr
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(told.map(({ event }) => event)).toEqual(["waiting", "acquired", "released"]);
  expect(told[1].waitSeconds).toBeGreaterThan(0);
  expect(await exclusive(["run", "-q", "--log-format", "json", "t", "true"], { dir })).toMatchObject({
    stderr: "",
  });
});

test("EXCLUSIVE_NAME and EXCLUSIVE_LOCKFILE are those of the innermost lock", async () => {
  using dir = new TempDir();
  const inner = [
    binary,
    "run",
    "b c",
    "--",
    "sh",
    "-c",
    `echo "$EXCLUSIVE_NAME $EXCLUSIVE_LOCKFILE"; env | grep -c ^EXCLUSIVE_NAME`,
  ];
  const { stdout } = await exclusive(["run", "a", "--", ...inner], { dir });
  expect(stdout).toBe(`b c ${dir.lockfile("b+c")}\n1\n`);
});

test("wrong usage: 64, the mistake and a suggestion", async () => {
  using dir = new TempDir();
  for (const [args, message] of [
    [["--if-held", "skp", "t", "true"], "did you mean skip?"],
    [["--slots", "0", "t", "true"], "slots"],
    [["--slots", "65", "t", "true"], "64"],
    [["--log-format", "xml", "t", "true"], "--log-format takes text, json, not 'xml'"],
    [["--timeout", "soon", "t", "true"], "soon"],
    [["--slots", "2", "--shared", "t", "true"], "shared"],
    [["--if-held", "coalesce", "--file", "/", "t", "true"], "--file"],
    [["t"], "missing COMMAND"],
    [["t", "--"], "missing COMMAND"],
    [[], "missing NAME"],
    [["", "true"], "name"],
  ] as const) {
    const result = await exclusive(["run", ...args], { dir });
    expect(result).toMatchObject({ status: 64, stdout: "" });
    expect(result.stderr).toStartWith("exclusive: ");
    expect(result.stderr).toContain(message);
  }
  expect(dir.list()).toEqual([]);
});

test("126 and 127, and no lock left behind", async () => {
  using dir = new TempDir();
  using other = new TempDir();
  const file = other.file("no-program");
  writeFileSync(file, "#!/bin/sh\n");
  for (const mode of [[], ["--exec"]]) {
    expect(await exclusive(["run", ...mode, "t", file], { dir })).toMatchObject({
      status: 126,
      stderr: expect.stringContaining(basename(file)),
    });
    expect(await exclusive(["run", ...mode, "t", other.path], { dir })).toMatchObject({ status: 126 });
    expect(await exclusive(["run", ...mode, "t", other.file("absent")], { dir })).toMatchObject({
      status: 127,
    });
    expect(await exclusive(["run", ...mode, "t", "no-such-command"], { dir })).toMatchObject({ status: 127 });
    expect(dir.list()).toEqual([]);
  }
  // A script without #! is run by sh, as a shell does it.
  writeFileSync(file, "echo script $1\n");
  chmodSync(file, 0o755);
  for (const mode of [[], ["--exec"]])
    expect(await exclusive(["run", ...mode, "t", file, "x"], { dir })).toMatchObject({
      status: 0,
      stdout: "script x\n",
    });
});
