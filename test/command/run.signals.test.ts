/** Signals: each reaches the command exactly once, and the wrapper ends as the command ended. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { alive, inSignalSet, processGroupOf, stateOf, waiters } from "../support/proc.ts";
import { command, exclusive, hold, Process, start } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const here = process.platform === "linux" && required("python3", "python3") && required("strace", "strace");

/**
 * Prints its pid, then each signal that it gets. The highest real-time signal is a fence: pending signals are delivered
 * in the order of their numbers, so all earlier ones have been forwarded when it arrives. It ends the command.
 */
const LISTENER = `
import os, signal, sys, time
def say(number, _):
    if number == signal.SIGRTMAX: sys.exit(7)
    os.write(1, (signal.Signals(number).name + "\\n").encode())
for number in range(1, 65):
    if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33): signal.signal(number, say)
os.write(1, b"pid %d\\n" % os.getpid())
while True: time.sleep(0.05)
`;
const listener = ["python3", "-ISc", LISTENER];
const FENCE = 64;

/** The signals that a process can catch, except SIGCHLD; those of faults too, as another process sends them. */
/** Signals for which Bun has no name. */
const UNNAMED: Record<string, number> = { SIGPWR: 30, SIGSTKFLT: 16 };

const FORWARDED = (
  [
    "HUP",
    "INT",
    "QUIT",
    "USR1",
    "USR2",
    "ALRM",
    "TERM",
    "CONT",
    "TSTP",
    "TTIN",
    "TTOU",
    "URG",
    "XCPU",
    "XFSZ",
    "VTALRM",
    "PROF",
    "WINCH",
    "IO",
    "PIPE",
    "ILL",
    "TRAP",
    "ABRT",
    "BUS",
    "FPE",
    "SEGV",
    "STKFLT",
    "PWR",
    "SYS",
  ] as const
).map((name) => `SIG${name}` as NodeJS.Signals);

/** Waits until the command handles its signals. Returns its pid. */
async function listening(wrapper: Process): Promise<number> {
  await wrapper.says("\n");
  return Number(/pid (\d+)/.exec(wrapper.stdout)![1]);
}

const pendingIn = (pid: number, signal: number) => inSignalSet(pid, "ShdPnd", signal);

/** A field of a thread's status, proc(5). */
const fieldOf = (pid: number, task: string, key: string): string =>
  new RegExp(`^${key}:\\t(.*)$`, "m").exec(readFileSync(`/proc/${pid}/task/${task}/status`, "utf8"))![1]!;

const heard = (wrapper: Process) => wrapper.stdout.split("\n").slice(1, -1);

describe.if(here)("signals", () => {
  for (const signal of FORWARDED) {
    test.concurrent(`${signal} to the wrapper alone reaches the command once`, async () => {
      using dir = new TempDir();
      await using wrapper = start(["run", "t", "--", ...listener], { dir });
      await listening(wrapper);
      process.kill(wrapper.pid, UNNAMED[signal as string] ?? signal);
      await wrapper.says(`${signal}\n`);
      process.kill(wrapper.pid, FENCE);
      expect(await wrapper.result).toMatchObject({ status: 7 });
      expect(heard(wrapper)).toEqual([signal]);
      expect(dir.list()).toEqual([]);
    });
  }

  test("a fault signal that a thread of the engine takes reaches the command", async () => {
    using dir = new TempDir();
    await using wrapper = start(["run", "t", "--", ...listener], { dir });
    await listening(wrapper);
    const [SEGV, TGKILL] = [11, process.arch === "x64" ? 234 : 131];
    const tasks = readdirSync(`/proc/${wrapper.pid}/task`).slice(1);
    const blocks = (task: string) =>
      (BigInt(`0x${fieldOf(wrapper.pid, task, "SigBlk")}`) >> BigInt(SEGV - 1)) & 1n;
    const open = tasks.filter((task) => blocks(task) === 0n);
    expect(open.length).toBe(1); // else Bun has changed: the table in signal-mask.ts with it
    const send = `import ctypes; ctypes.CDLL(None).syscall(${TGKILL}, ${wrapper.pid}, ${open[0]}, ${SEGV})`;
    expect(await command(["python3", "-c", send])).toMatchObject({ status: 0 });
    await wrapper.says("SIGSEGV\n");
    process.kill(wrapper.pid, FENCE);
    expect(await wrapper.result).toMatchObject({ status: 7 });
    expect(heard(wrapper)).toEqual(["SIGSEGV"]);
  });

  test("signals to the command alone do not concern the wrapper, however the command ends", async () => {
    using dir = new TempDir();
    await using wrapper = start(["run", "t", "--", ...listener], { dir });
    const pid = await listening(wrapper);
    process.kill(pid, "SIGTERM");
    await wrapper.says("SIGTERM");
    process.kill(pid, "SIGKILL");
    expect(await wrapper.result).toMatchObject({ status: null, signal: "SIGKILL" });
    expect(heard(wrapper)).toEqual(["SIGTERM"]);
    expect(dir.list()).toEqual([]);
  });

  test("a script that signals its whole process group (kill 0) gets the signal, and may get it twice", async () => {
    using dir = new TempDir();
    const script = `trap 'n=$((n+1))' USR1; n=0; kill -USR1 0; sleep 0.3; echo $n`;
    const { stdout } = await command(["setsid", "--wait", binary, "run", "t", "--", "sh", "-c", script], {
      dir,
    });
    expect(stdout).toMatch(/^[12]\n$/);
  });

  test("a command that signals its parent gets the signal, as it does that stops its own run", async () => {
    using dir = new TempDir();
    const heard = (send: string) => `trap 'echo heard; exit 3' TERM; ${send}; while :; do sleep 0.1; done`;
    for (const send of ["kill -TERM $PPID", `(kill -TERM $PPID)`, `(${binary} stop --grace 1m t &)`]) {
      const begin = Bun.nanoseconds();
      const result = await exclusive(["run", "t", "--", "sh", "-c", heard(send)], { dir });
      expect(result).toMatchObject({ status: 3, stdout: expect.stringContaining("heard\n") });
      expect((Bun.nanoseconds() - begin) / 1e9).toBeLessThan(50); // no grace period passes
    }
  });

  test("a signal that was blocked at the start neither ends a wait nor is lost", async () => {
    using dir = new TempDir();
    await using holder = await hold(dir, "t");
    const blocked = ["env", "--block-signal=USR1"];
    await using waiter = new Process([...blocked, binary, "run", "-w", "t", "--", ...listener], { dir });
    await until(() => waiters(dir.lockfile("t")) === 1, "the waiter");
    process.kill(waiter.pid, "SIGUSR1");
    await Bun.sleep(100); // not needed to pass: gives the wait the time to fail
    expect(waiter.running).toBe(true);
    holder.kill();
    const pid = await listening(waiter);
    await until(() => pendingIn(pid, 10), "the signal to be pending in the command");
    process.kill(waiter.pid, FENCE);
    expect(await waiter.result).toMatchObject({ status: 7 });
  });

  // The engine's collector suspends the main thread by it, and waits for that without end.
  test("a SIGPWR that was ignored at the start is ignored by the command, but not by a wrapper that has waited", async () => {
    using dir = new TempDir();
    await using holder = await hold(dir, "t");
    const command = ["run", "-w", "t", "--", "sh", "-c", "echo $$; exec sleep 60"];
    await using waiter = new Process(["env", "--ignore-signal=PWR", binary, ...command], { dir });
    await until(() => waiters(dir.lockfile("t")) === 1, "the waiter");
    holder.kill();
    await waiter.says("\n");
    const ignores = (pid: number) => inSignalSet(pid, "SigIgn", UNNAMED.SIGPWR!);
    expect([Number(waiter.stdout), waiter.pid].map(ignores)).toEqual([true, false]);
  });

  test("a signal of a fault that another process sends ends a wait without a word", async () => {
    using dir = new TempDir();
    await using _holder = await hold(dir, "t");
    for (const signal of ["SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS"] as const) {
      const script = 'ulimit -c 0; exec "$0" run -qw t true';
      await using waiter = new Process(["sh", "-c", script, binary], { dir });
      await until(() => waiters(dir.lockfile("t")) === 1, "the waiter");
      process.kill(waiter.pid, signal);
      expect(await waiter.result).toMatchObject({ signal, stderr: "" });
    }
  });

  test("a SIGCHLD that was ignored at the start costs no exit status, and the command ignores it", async () => {
    using dir = new TempDir();
    const runs = Number(process.env.CHLD_RUNS ?? 60);
    const script = `for i in $(seq ${runs}); do ${binary} run t -- /bin/false; echo $?; done | sort | uniq -c`;
    const ignoring = ["env", "--ignore-signal=CHLD"];
    const { stdout } = await command([...ignoring, "bash", "-c", script], { dir });
    expect(stdout.trim()).toBe(`${runs} 1`);
    const status = await command([...ignoring, binary, "run", "t", "grep", "SigIgn", "/proc/self/status"], {
      dir,
    });
    expect(status.stdout).toMatch(/1....$/m);
    expect(await command([...ignoring, binary, "run", "t", "/none"], { dir })).toMatchObject({
      status: 127,
      stderr: "exclusive: cannot run /none: No such file or directory\n",
    });
  }, 1_800_000);

  test("a signal from outside to the whole group is never lost, but may come twice", async () => {
    using dir = new TempDir();
    await using group = new Process(["setsid", "--wait", binary, "run", "t", "--", ...listener], { dir });
    const pid = await listening(group);
    const pgrp = processGroupOf(pid);
    process.kill(-pgrp, "SIGTERM");
    await group.says("SIGTERM");
    process.kill(pgrp, FENCE); // the wrapper leads the group
    expect(await group.result).toMatchObject({ status: 7 });
    expect(new Set(heard(group))).toEqual(new Set(["SIGTERM"]));
    expect(heard(group).length).toBeLessThanOrEqual(2);
  });

  test("timeout(1) around the wrapper ends the command, and reports it", async () => {
    using dir = new TempDir();
    const timed = (...options: string[]) =>
      command(["timeout", ...options, "0.3", binary, "run", "t", "--", "sleep", "60"], { dir });
    expect(await timed()).toMatchObject({ status: 124 });
    expect(await timed("--foreground")).toMatchObject({ status: 124 });
    expect(await timed("-s", "INT", "--preserve-status")).toMatchObject({ status: 128 + 2 });
    expect(dir.list()).toEqual([]);
  });

  test("timeout(1) inside the wrapper works as it does outside", async () => {
    using dir = new TempDir();
    expect(await exclusive(["run", "t", "--", "timeout", "0.2", "sleep", "60"], { dir })).toMatchObject({
      status: 124,
    });
  });

  for (const name of [
    "HUP",
    "INT",
    "QUIT",
    "ILL",
    "ABRT",
    "BUS",
    "FPE",
    "KILL",
    "USR1",
    "SEGV",
    "PIPE",
    "ALRM",
    "TERM",
    "XCPU",
    "SYS",
  ]) {
    test.concurrent(`a wrapper whose command SIG${name} killed dies of it too`, async () => {
      using dir = new TempDir();
      const result = await exclusive(["run", "t", "--", "sh", "-c", `ulimit -c 0; kill -${name} $$`], {
        dir,
      });
      expect(result).toMatchObject({ status: null, signal: `SIG${name}`, stderr: "" });
      expect(dir.list()).toEqual([]);
    });
  }

  test("a real-time signal too", async () => {
    using dir = new TempDir();
    const script = `${binary} run t -- sh -c 'kill -40 $$'; echo $?`;
    expect(await command(["bash", "-c", script], { dir })).toMatchObject({ stdout: `${128 + 40}\n` });
  });

  test("statuses 0 to 255 are those of the command", async () => {
    using dir = new TempDir();
    for (const status of [0, 1, 64, 75, 126, 127, 128, 130, 255])
      expect(await exclusive(["run", "t", "--", "sh", "-c", `exit ${status}`], { dir })).toMatchObject({
        status,
      });
  });

  test("a command that ends before the wait for its SIGCHLD is noticed, many times", async () => {
    using dir = new TempDir();
    const script = `for i in $(seq 40); do ${binary} run t true || exit 1; done`;
    expect(await command(["sh", "-c", script], { dir })).toMatchObject({ status: 0, stderr: "" });
  });

  test("the command dumps core; the wrapper, which dies of the same signal, does not", async () => {
    using dir = new TempDir();
    const { stdout } = await command(
      [
        "bash",
        "-c",
        `ulimit -c unlimited; strace -f -qq -e trace=none -e signal=ABRT ${binary} run t sh -c 'kill -ABRT $$' 2>&1; echo`,
      ],
      { dir, cwd: dir.path }, // for the core file
    );
    // strace reports each process that a signal ends, and whether it dumps core.
    const ends = stdout.match(/killed by SIGABRT( \(core dumped\))?/g) ?? [];
    expect(ends.length).toBeGreaterThanOrEqual(2);
    expect(ends.at(-1)).toBe("killed by SIGABRT");
  });

  test("a closed stderr of the wrapper does not harm the command", async () => {
    using dir = new TempDir();
    const done = dir.file("done");
    const script = `{ ${binary} run -v t -- sh -c 'sleep 0.3; echo yes >"$0"' ${done}; } 2>&1 | true`;
    await command(["bash", "-c", script], { dir });
    await until(
      async () => (await Bun.file(done).exists()) && (await Bun.file(done).text()) === "yes\n",
      "the command's end",
    );
  });

  test("SIGSTOP and SIGCONT to the command alone: the wrapper waits for its end", async () => {
    using dir = new TempDir();
    await using wrapper = start(["run", "t", "--", ...listener], { dir });
    const pid = await listening(wrapper);
    process.kill(pid, "SIGSTOP");
    await until(() => stateOf(pid) === "T", "the command to stop");
    process.kill(pid, "SIGCONT");
    await wrapper.says("SIGCONT");
    process.kill(wrapper.pid, FENCE);
    expect(await wrapper.result).toMatchObject({ status: 7 });
    expect(heard(wrapper)).toEqual(["SIGCONT"]);
  });

  test("SIGSTOP to the wrapper alone: the lock stays, the command goes on, SIGCONT is forwarded", async () => {
    using dir = new TempDir();
    await using wrapper = start(["run", "t", "--", ...listener], { dir });
    const pid = await listening(wrapper);
    process.kill(wrapper.pid, "SIGSTOP");
    await until(() => stateOf(wrapper.pid) === "T", "the wrapper to stop");
    process.kill(pid, "SIGUSR1");
    await wrapper.says("SIGUSR1");
    expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 75 });
    process.kill(wrapper.pid, "SIGCONT");
    await wrapper.says("SIGCONT");
    process.kill(wrapper.pid, FENCE);
    expect(await wrapper.result).toMatchObject({ status: 7 });
  });

  test("SIGKILL of the wrapper: the lock is held until the command ends", async () => {
    using dir = new TempDir();
    await using wrapper = start(["run", "t", "--", ...listener], { dir });
    const pid = await listening(wrapper);
    wrapper.kill("SIGKILL");
    await wrapper.result;
    expect(alive(pid)).toBe(true);
    expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 75 });
    process.kill(pid, "SIGKILL");
    expect(await exclusive(["run", "-t", "20", "t", "echo", "free"], { dir })).toMatchObject({
      stdout: "free\n",
    });
    expect(dir.list()).toEqual([]);
  });

  test("a signal before the command has started is not lost", async () => {
    using dir = new TempDir();
    for (let delay = 0; delay < 30; delay++) {
      await using wrapper = start(["run", "t", "--", "sleep", "60"], { dir });
      await Bun.sleep(delay / 2);
      wrapper.kill("SIGTERM");
      expect(await wrapper.result).toMatchObject({ signal: "SIGTERM", stderr: "" });
    }
  });
});

/** Names of the threads, except the first, that can consume SIGTERM or SIGCHLD. */
function takingSignals(pid: number): string[] {
  const CHLD_AND_TERM = (1n << 16n) | (1n << 14n);
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks)
    .filter((id) => id !== String(pid))
    .flatMap((id) => {
      try {
        const [, name, blocked] = /^Name:\t(.*)$[\s\S]*^SigBlk:\t(.*)$/m.exec(
          readFileSync(`${tasks}/${id}/status`, "utf8"),
        )!;
        return (BigInt(`0x${blocked}`) & CHLD_AND_TERM) === CHLD_AND_TERM ? [] : [name!];
      } catch {
        return []; // it has ended
      }
    });
}

describe.if(here)("only the thread that waits for signals consumes them", () => {
  const job = ["t", "--", "sh", "-c", "echo ready; exec sleep 600"];

  test("in a run, also after a wait and after a replacement", async () => {
    using dir = new TempDir();
    await using first = start(["run", ...job], { dir });
    await first.says("ready");
    expect(takingSignals(first.pid)).toEqual([]);
    await using second = start(["run", "--if-held", "replace", ...job], { dir });
    await second.says("ready");
    expect(takingSignals(second.pid)).toEqual([]);
    for (const waiting of [["-w"], ["-t", "60"], ["--if-held", "coalesce"]]) {
      await using holder = await hold(dir, "u");
      await using third = start(["run", ...waiting, "u", ...job.slice(1)], { dir });
      await until(() => takingSignals(third.pid).length === 1, "the thread that waits"); // in it a signal ends the wait
      holder.kill();
      await third.says("ready");
      await until(() => takingSignals(third.pid).length === 0, "the thread that has waited to be gone");
    }
  });
});
