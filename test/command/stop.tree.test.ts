/** `stop` and `--if-held replace` end the tree of the command, all of it, and no other process. */
import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { alive } from "../support/proc.ts";
import { commandOf, exclusive, Process, start } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const stop = (dir: TempDir, ...args: string[]) => exclusive(["stop", ...args], { dir });

/** The pids that processes of the test have written to this file, once there are so many. */
async function pidsIn(file: string, count: number): Promise<number[]> {
  const lines = () => (existsSync(file) ? readFileSync(file, "utf8").trim().split("\n") : []);
  await until(() => lines().length >= count, `${count} pids in ${file}`);
  return lines().map(Number);
}

/** A script whose children do the work, each in another way; each appends its pid to `$1`. */
const MANY = `
work() { "$@" sh -c 'echo $$ >>"$0"; exec sleep 600' "$F" & }
F=$1
work env
work setsid
work nohup
work setsid env -i PATH="$PATH"
sh -c 'setsid sh -c "echo \\$\\$ >>$0; exec sleep 600" &' "$F"
sh -c 'trap "" TERM; echo $$ >>"$0"; while :; do sleep 0.05; done' "$F" &
python3 -c 'import os,sys,time
if os.fork() == 0:
  os.setsid(); os.closerange(3, 4096)
  open(sys.argv[1],"a").write(f"{os.getpid()}\\n")
  time.sleep(600)' "$F"
wait
sleep 600
`;

describe.if(required("python3", "python3"))("the tree", () => {
  async function holdMany(dir: TempDir): Promise<{ holder: Process; pids: number[] }> {
    const holder = start(["run", "job", "--", "bash", "-c", MANY, "bash", dir.file("pids")], { dir });
    return { holder, pids: await pidsIn(dir.file("pids"), 7) };
  }

  test("stop: over when no process of the tree lives, however it left session, parent and environment", async () => {
    using dir = new TempDir();
    const { holder, pids } = await holdMany(dir);
    await using _ = holder;
    expect(await stop(dir, "--grace", "300ms", "job")).toMatchObject({
      status: 0,
      stderr: `exclusive: stopped pid ${holder.pid}: 'job' is free\n`,
    });
    expect(pids.filter(alive)).toEqual([]);
    expect((await holder.result).signal).toBe("SIGTERM");
    expect((await exclusive(["run", "job", "--", "echo", "in"], { dir })).stdout).toBe("in\n");
  });

  test("stop, when the wrapper was killed: all that has the lock", async () => {
    using dir = new TempDir();
    const { holder, pids } = await holdMany(dir);
    const command = commandOf(holder);
    holder.kill("SIGKILL");
    await holder.result;
    expect(await stop(dir, "--grace", "300ms", "job")).toMatchObject({ status: 0 });
    // One of them had closed all descriptors, and no process that would know it is left.
    const survivors = pids.filter(alive);
    for (const pid of survivors) process.kill(pid, "SIGKILL");
    expect(survivors.length).toBeLessThanOrEqual(1);
    expect(alive(command)).toBe(false);
    expect((await exclusive(["run", "job", "--", "true"], { dir })).status).toBe(0);
  });

  test("replace: the new command starts when all of the old one is gone", async () => {
    using dir = new TempDir();
    const { holder, pids } = await holdMany(dir);
    await using _ = holder;
    const script = `for p in $(cat pids); do grep -q 'State:.[^ZX]' /proc/$p/status 2>/dev/null && echo $p lives; done; true`;
    const args = ["run", "--if-held", "replace", "job", "--", "bash", "-c", script];
    const next = await exclusive(args, { dir, cwd: dir.path });
    expect(next).toMatchObject({ status: 0, stdout: "" });
    expect(pids.filter(alive)).toEqual([]);
  }, 30_000);
});

test("stop, when wrapper and command are gone: what they left is named by status, and ended", async () => {
  using dir = new TempDir();
  const script = "setsid env -i sleep 600 & echo $!; while [ ! -e end ]; do sleep 0.02; done";
  const args = ["run", "--label", "it", "job", "--", "bash", "-c", script];
  const holder = start(args, { dir, cwd: dir.path });
  await holder.says("\n");
  const daemon = Number(holder.stdout);
  const shell = commandOf(holder);
  holder.kill("SIGKILL");
  await holder.result;
  writeFileSync(dir.file("end"), "");
  await until(() => !alive(shell), "the end of the command");
  const { stdout } = await exclusive(["status", "job"], { dir });
  expect(stdout).toMatch(
    new RegExp(`^'job' is held by pid ${daemon} \\(left by its command\\) for \\d+s \\(it\\): sleep 600\n$`),
  );
  const waiting = start(["run", "-v", "--wait", "job", "--", "true"], { dir });
  await until(() => waiting.stderr.includes(`held by pid ${daemon}`), "the waiter names it");
  expect(await stop(dir, "job")).toMatchObject({
    status: 0,
    stderr: expect.stringContaining(`stopped pid ${daemon}`),
  });
  expect(alive(daemon)).toBe(false);
  expect((await waiting.result).status).toBe(0);
});

test("clean-up that a command starts on SIGTERM is left to work", async () => {
  using dir = new TempDir();
  const script = `trap 'sleep 0.3; echo cleaned; exit 5' TERM; echo begun; sleep 600 & wait`;
  await using holder = start(["run", "job", "--", "sh", "-c", script], { dir });
  await holder.says("begun");
  expect(await stop(dir, "job")).toMatchObject({ status: 0 });
  expect(await holder.result).toMatchObject({ status: 5, stdout: "begun\ncleaned\n" });
});

test("a script does not go on with its next line when it is stopped", async () => {
  using dir = new TempDir();
  await using holder = start(["run", "job", "--", "sh", "-c", "echo begun; sleep 600; echo next"], { dir });
  await holder.says("begun");
  expect(await stop(dir, "job")).toMatchObject({ status: 0 });
  expect(await holder.result).toMatchObject({ signal: "SIGTERM", stdout: "begun\n" });
});

test("what the caller's own pipeline and an earlier command left is not of the tree", async () => {
  using dir = new TempDir();
  const daemon = Number(
    (await exclusive(["run", "job", "--", "sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"], { dir }))
      .stdout,
  );
  // In an interactive shell the wrapper leads the group of its pipeline; and `exec` leaves it children that are older.
  const line = `sleep 600 & echo $!; sleep 0.02; exec setsid --wait sh -c 'sleep 601 & echo $!; sleep 0.02; exec ${binary} run job -- sh -c "echo begun; exec sleep 600"'`;
  await using shell = new Process(["bash", "-c", line], { dir });
  await shell.says("begun");
  const beside = shell.stdout.trim().split("\n").slice(0, 2).map(Number);
  try {
    expect(await stop(dir, "job")).toMatchObject({ status: 0 });
    for (const pid of [daemon, ...beside]) expect(alive(pid)).toBe(true);
  } finally {
    for (const pid of [daemon, ...beside]) process.kill(pid, "SIGKILL");
  }
});

test("one SIGTERM for each command, however many replace it or stop it", async () => {
  using dir = new TempDir();
  const script = `trap 'echo TERM >>terms' TERM; echo begun; while [ ! -e end ]; do sleep 0.05; done`;
  await using holder = start(["run", "job", "--", "bash", "-c", script], { dir, cwd: dir.path });
  await holder.says("begun");
  const replacers = Array.from({ length: 10 }, () =>
    start(["run", "-v", "--if-held", "replace", "job", "--", "true"], { dir }),
  );
  const stoppers = Array.from({ length: 3 }, () => start(["stop", "job"], { dir }));
  for (const replacer of replacers)
    await until(() => replacer.stderr.includes("waiting for"), "all of them wait");
  await until(() => existsSync(dir.file("terms")), "the signal");
  expect((await exclusive(["list"], { dir })).stdout.split("\n").length).toBe(3); // no turn is listed
  await Bun.sleep(500); // a second one would come now
  expect(readFileSync(dir.file("terms"), "utf8")).toBe("TERM\n");
  writeFileSync(dir.file("end"), "");
  for (const one of [...replacers, ...stoppers]) expect((await one.result).status ?? 0).toBe(0);
  expect(readFileSync(dir.file("terms"), "utf8")).toBe("TERM\n");
  await holder.result;
  expect(dir.list()).toEqual(["end", "terms"]);
}, 60_000);

test("stop -s KILL does not wait for the grace of another stop; no turn stays after a signal", async () => {
  using dir = new TempDir();
  const script = "trap '' TERM; echo begun; while :; do sleep 0.05; done";
  await using holder = start(["run", "job", "--", "sh", "-c", script], { dir });
  await holder.says("begun");
  await using patient = start(["stop", "--grace", "1h", "job"], { dir });
  await until(() => dir.list().length === 2, "its turn");
  await using impatient = start(["stop", "--grace", "1h", "job"], { dir });
  impatient.kill("SIGTERM");
  expect((await impatient.result).signal).toBe("SIGTERM");
  patient.kill("SIGTERM");
  expect((await patient.result).signal).toBe("SIGTERM");
  expect(dir.list()).toEqual(["exclusive_job.lock"]);
  await using again = start(["stop", "--grace", "1h", "job"], { dir });
  await until(() => dir.list().length === 2, "its turn");
  expect(await stop(dir, "-s", "KILL", "job")).toMatchObject({ status: 0 });
  expect((await again.result).status).toBe(0);
  expect((await holder.result).signal).toBe("SIGKILL");
  expect(dir.list()).toEqual([]);
});

describe("a worker that stops or replaces itself", () => {
  test("stop from inside: SIGTERM at once, no SIGKILL, and its traps run", async () => {
    using dir = new TempDir();
    for (const [script, ended] of [
      [`echo begun; ${binary} stop worker; echo after; sleep 600`, { signal: "SIGTERM" }],
      [`trap 'echo trapped; exit 4' TERM; ${binary} stop worker; sleep 600`, { status: 4 }],
      [`(${binary} stop worker) & wait; sleep 600`, { signal: "SIGTERM" }],
    ] as const) {
      const before = performance.now();
      const result = await exclusive(["run", "worker", "--", "bash", "-c", script], { dir });
      expect(result).toMatchObject(ended);
      expect(result.stdout).not.toContain("after");
      if ("status" in ended) expect(result.stdout).toBe("trapped\n");
      expect(performance.now() - before).toBeLessThan(8000); // of ten seconds of grace
      await until(
        async () => (await exclusive(["status", "worker"], { dir })).stdout.includes("is free"),
        "free",
      );
    }
  }, 40_000);

  test("replace from inside: the new run begins when the old one has ended", async () => {
    using dir = new TempDir();
    const script = `echo old; ${binary} run --if-held replace worker -- sh -c 'echo new >done'; echo after`;
    const result = await exclusive(["run", "worker", "--", "bash", "-c", script], { dir, cwd: dir.path });
    expect(result).toMatchObject({ signal: "SIGTERM", stdout: "old\n" });
    await until(() => existsSync(dir.file("done")), "the new run");
    await until(() => dir.list().length === 1, "its end");
  }, 40_000);
});

test("a label of any length does not keep stop from knowing the holder", async () => {
  using dir = new TempDir();
  const label = "x".repeat(100_000);
  await using holder = start(
    ["run", "--label", label, "job", "--", "sh", "-c", "echo begun; exec sleep 600"],
    { dir },
  );
  await holder.says("begun");
  const { holder: shown } = JSON.parse((await exclusive(["status", "--json", "job"], { dir })).stdout);
  expect(shown.label).toBe("x".repeat(1024));
  expect(await stop(dir, "job")).toMatchObject({ status: 0 });
});

/** Passes its descriptor of the file `$2` to the server on the socket `$1`, and lives on or not. */
const PASS = `
import socket, array, sys, os, fcntl, time
fds = [int(n) for n in os.listdir("/proc/self/fd")]
fd = [n for n in fds if os.path.exists(f"/proc/self/fd/{n}") and os.readlink(f"/proc/self/fd/{n}") == sys.argv[2]][0]
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
s.recv(1)
print("passed", flush=True)
time.sleep(float(sys.argv[3]))
`;
/** A server that keeps what it is passed. */
const SERVE = `
import socket, sys, time, os
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o777); s.listen()
print("begun", flush=True)
c, _ = s.accept(); c.recvmsg(1, socket.CMSG_SPACE(64)); c.send(b"y")
time.sleep(600)
`;

describe.if(process.getuid?.() === 0 && required("setpriv", "util-linux") && required("python3", "python3"))(
  "root's stop signals no process to which another user has passed the lock",
  () => {
    const asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

    for (const [what, seconds] of [
      ["its command lives", 600],
      ["its command has ended and only root's server has the lock", 0],
    ] as const) {
      test(`${what}`, async () => {
        using dir = new TempDir();
        chmodSync(dir.path, 0o1777);
        await using server = new Process(["python3", "-c", SERVE, dir.file("socket")]);
        await server.says("begun");
        const pass = ["python3", "-c", PASS, dir.file("socket"), dir.lockfile("job"), String(seconds)];
        await using holder = new Process([...asNobody, binary, "run", "job", "--", ...pass], { dir });
        await holder.says("passed");
        if (seconds === 0) {
          holder.kill("SIGKILL"); // before its command ends, or the wrapper would unlock
          await holder.result;
        }
        const told = await stop(dir, "--grace", "200ms", "job");
        expect(server.running).toBe(true);
        expect(told.status).not.toBe(0);
        expect(told.stderr).toContain(`pid ${server.pid}`);
        const replaced = await exclusive(
          ["run", "--if-held", "replace", "-t", "300ms", "job", "--", "echo", "no"],
          { dir },
        );
        expect(replaced).toMatchObject({ status: 75, stdout: "" });
        expect(server.running).toBe(true);
      });
    }
  },
);
