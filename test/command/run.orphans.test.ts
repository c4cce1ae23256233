/** The lock is held exactly as long as the work runs: when the command ends by itself, and when it is killed. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { canUnshare, unshare } from "../support/namespaces.ts";
import { binary } from "../support/paths.ts";
import { alive } from "../support/proc.ts";
import { command, commandOf, exclusive, start } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const run = (dir: TempDir, ...args: string[]) => exclusive(["run", ...args], { dir });

/** Processes that a test leaves on purpose: they are killed when the scope ends. */
class Left implements Disposable {
  readonly pids: number[] = [];
  add(pid: number): number {
    this.pids.push(pid);
    return pid;
  }
  [Symbol.dispose](): void {
    for (const pid of this.pids)
      try {
        process.kill(pid, "SIGKILL");
      } catch {} // it has ended
  }
}

/** The pid that a process of the test has written to this file. */
async function pidIn(file: string): Promise<number> {
  await until(() => existsSync(file) && readFileSync(file, "utf8").endsWith("\n"), `a pid in ${file}`);
  return Number(readFileSync(file, "utf8"));
}

/** What does the work: writes its pid to `$1`, and works until it is killed. */
const WORK = `sh -c 'echo $$ >"$0"; exec sleep 600'`;

/** Each starts a child that does the work, in the way of a script that somebody has written. `$1`: where its pid goes. */
const SCRIPTS: Record<string, string> = {
  "a script that waits for its child": `${WORK} "$1"; :`,
  "a script with a child in the background": `${WORK} "$1" & wait`,
  "a pipeline": `${WORK} "$1" | cat >/dev/null; :`,
  "a script in a script": `sh -c 'sh -c "echo \\$\\$ >$0; exec sleep 600"; :' "$1"; :`,
  "nohup in a script": `nohup ${WORK} "$1" >/dev/null 2>&1; :`,
  "setsid in a script": `setsid --wait ${WORK} "$1"; :`,
  "setsid and an empty environment": `setsid --wait env -i ${WORK} "$1"; :`,
};

describe("a command that was killed leaves the lock to its children", () => {
  for (const [what, script] of Object.entries(SCRIPTS)) {
    test.each(["wrapper", "command"])(`${what}, by SIGTERM to the %s`, async (to) => {
      using dir = new TempDir();
      using left = new Left();
      await using holder = start(["run", "job", "--", "sh", "-c", script, "sh", dir.file("pid")], { dir });
      const child = left.add(await pidIn(dir.file("pid")));
      if (to === "wrapper") holder.kill();
      else process.kill(commandOf(holder));
      const ended = await holder.result;
      expect(ended.signal).toBe("SIGTERM");
      expect(ended.stderr).toMatch(
        /^exclusive: 'job' stays locked by .* that the command left \(pid .*\b\d+\b/,
      );
      expect(ended.stderr).toContain(String(child));
      const refused = await run(dir, "job", "--", "echo", "in");
      expect(refused).toMatchObject({ status: 75, stdout: "" });
      expect(refused.stderr).not.toContain(`pid ${holder.pid} `);
      process.kill(child, "SIGKILL");
      await until(() => !alive(child), "the child is gone");
      await until(async () => (await run(dir, "-q", "job", "--", "true")).status === 0, "the lock is free");
      expect(dir.list()).toEqual(["pid"]);
    });
  }

  test.if(required("make", "make"))("make", async () => {
    using dir = new TempDir();
    using left = new Left();
    writeFileSync(dir.file("Makefile"), "all:\n\techo $$$$ >pid; sleep 600; :\n");
    await using holder = start(["run", "job", "--", "make", "-C", dir.path], { dir });
    left.add(await pidIn(dir.file("pid")));
    holder.kill("SIGKILL");
    await holder.result;
    process.kill(commandOfOrphan(dir), "SIGKILL");
    expect((await run(dir, "job", "--", "true")).status).toBe(75);
    expect((await exclusive(["stop", "job"], { dir })).status).toBe(0);
    expect(alive(left.pids[0]!)).toBe(false);
  });

  test.if(process.getuid?.() === 0 && required("su", "util-linux"))("su, to another user", async () => {
    using dir = new TempDir();
    using left = new Left();
    (await import("node:fs")).chmodSync(dir.path, 0o777);
    const script = `echo $$ >${dir.file("pid")}; sleep 600; :`;
    await using holder = start(["run", "job", "--", "su", "-s", "/bin/sh", "nobody", "-c", script], { dir });
    const child = left.add(await pidIn(dir.file("pid")));
    process.kill(commandOf(holder), "SIGKILL");
    expect((await holder.result).stderr).toContain("stays locked");
    expect((await run(dir, "job", "--", "true")).status).toBe(75);
    expect(alive(child)).toBe(true);
  });

  test("also in the modes shared, --slots, --keep and --file", async () => {
    for (const options of [["--shared"], ["--slots", "1"], ["--keep"], ["--file"]]) {
      using dir = new TempDir();
      using left = new Left();
      writeFileSync(dir.file("named"), "kept");
      const args = options[0] === "--file" ? ["--file", dir.file("named"), "job"] : [...options, "job"];
      const script = `${WORK} "$1"; :`;
      await using holder = start(["run", ...args, "--", "sh", "-c", script, "sh", dir.file("pid")], { dir });
      const child = left.add(await pidIn(dir.file("pid")));
      holder.kill();
      expect((await holder.result).stderr).toContain(
        `stays locked by 1 process that the command left (pid ${child})`,
      );
      const next = args.filter((arg) => arg !== "--shared");
      expect(await run(dir, ...next, "--", "echo", "in")).toMatchObject({ status: 75, stdout: "" });
      process.kill(child, "SIGKILL");
      await until(async () => (await run(dir, "-q", ...next, "--", "true")).status === 0, `free: ${options}`);
      expect(readFileSync(dir.file("named"), "utf8")).toBe("kept");
    }
  });

  test("a shell that reports its killed child, and one that handles SIGTERM, were asked to end as well", async () => {
    using dir = new TempDir();
    using left = new Left();
    writeFileSync(
      dir.file("inner.sh"),
      `${WORK} "$1" & while [ ! -s "$1" ]; do sleep 0.02; done; kill -9 $$`,
    );
    const shell = `sh ${dir.file("inner.sh")} "$1"; exit $?`;
    const killed = await run(dir, "job", "--", "bash", "-c", shell, "bash", dir.file("pid"));
    left.add(await pidIn(dir.file("pid")));
    expect(killed).toMatchObject({ status: 137, stderr: expect.stringContaining("stays locked") });
    const trap = `trap 'exit 3' TERM; ${WORK} "$1" & wait`;
    await using holder = start(["run", "two", "--", "sh", "-c", trap, "sh", dir.file("pid2")], { dir });
    left.add(await pidIn(dir.file("pid2")));
    holder.kill();
    expect(await holder.result).toMatchObject({ status: 3, stderr: expect.stringContaining("stays locked") });
  });

  test("status, list and events name the processes that the command left, not the dead", async () => {
    using dir = new TempDir();
    using left = new Left();
    const script = `sleep 600 & ${WORK} "$1"; :`;
    await using holder = start(
      [
        "run",
        "--log-format",
        "json",
        "--label",
        "it",
        "job",
        "--",
        "sh",
        "-c",
        script,
        "sh",
        dir.file("pid"),
      ],
      { dir },
    );
    const child = left.add(await pidIn(dir.file("pid")));
    const shell = commandOf(holder);
    holder.kill();
    const events = (await holder.result).stderr
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(events.at(-1)).toMatchObject({ event: "orphaned", name: "job", signal: "SIGTERM" });
    for (const pid of events.at(-1).pids) left.add(pid);
    expect(events.at(-1).pids).toContain(child);
    const { holder: named, others } = JSON.parse(
      (await exclusive(["status", "--json", "job"], { dir })).stdout,
    );
    expect(named).toMatchObject({ alive: true, left: true, label: "it" });
    expect([named.pid, others[0].pid].sort()).toEqual([...events.at(-1).pids].sort());
    const { stdout } = await exclusive(["list"], { dir });
    expect(stdout).toContain(`${named.pid} +1`);
    expect(stdout).not.toMatch(new RegExp(`\\b(${holder.pid}|${shell})\\b`));
    expect(await exclusive(["stop", "job"], { dir })).toMatchObject({ status: 0 });
    for (const pid of events.at(-1).pids) expect(alive(pid)).toBe(false);
  });
});

describe("a command that ends by itself frees the lock at once", () => {
  for (const [what, daemon] of [
    ["in the background", "sleep 600 >/dev/null 2>&1 & echo $!"],
    ["in a session of its own", "setsid sleep 600 >/dev/null 2>&1 & echo $!"],
    ["that forks twice", "sh -c 'sleep 600 >/dev/null 2>&1 & echo $!'"],
    ["with nohup", "nohup sleep 600 >/dev/null 2>&1 & echo $!"],
  ] as const) {
    test.each([0, 3, 255])(`a daemon ${what} does not keep it (exit %d)`, async (status) => {
      using dir = new TempDir();
      using left = new Left();
      const first = await run(dir, "job", "--", "sh", "-c", `${daemon}; exit ${status}`);
      const pid = left.add(Number(first.stdout));
      expect(first).toMatchObject({ status, stderr: "" });
      expect(dir.list()).toEqual([]);
      expect(await run(dir, "job", "--", "echo", "in")).toMatchObject({ status: 0, stdout: "in\n" });
      expect(alive(pid)).toBe(true);
    });
  }

  test("signals that do not ask it to end change nothing", async () => {
    using dir = new TempDir();
    using left = new Left();
    const script = "trap 'exit 0' USR1; sleep 600 >/dev/null 2>&1 & echo $!; while :; do sleep 0.02; done";
    await using holder = start(["run", "job", "--", "bash", "-c", script], { dir });
    await holder.says("\n");
    left.add(Number(holder.stdout));
    holder.kill("SIGWINCH");
    holder.kill("SIGUSR1");
    expect(await holder.result).toMatchObject({ status: 0, stderr: "" });
    expect(dir.list()).toEqual([]);
  });

  test("what the wrapper adopts is reaped while it runs, and does not hide the command's end", async () => {
    using dir = new TempDir();
    const script = `for i in 1 2 3 4 5; do sh -c 'sleep 0.01 &'; done; sleep 1; ps -o stat= --ppid $PPID; exit 7`;
    const { status, stdout } = await run(dir, "job", "--", "bash", "-c", script);
    expect(status).toBe(7);
    expect(stdout).not.toContain("Z");
  });

  test.if(canUnshare())("as pid 1 it reaps what is left to it, and ends as the command ends", async () => {
    using dir = new TempDir();
    const script = `for i in 1 2 3 4 5; do sh -c 'setsid sleep 0.01 &'; done; sleep 1; ps -A -o stat=; exit 9`;
    const { status, stdout } = await command([...unshare, binary, "run", "job", "--", "bash", "-c", script], {
      dir,
    });
    expect(status).toBe(9);
    expect(stdout).not.toContain("Z");
    expect(dir.list()).toEqual([]);
  });
});

/** The pid of the command in the record of the lock `job`. */
function commandOfOrphan(dir: TempDir): number {
  const [, line] = readFileSync(dir.lockfile("job"), "utf8").split("\n");
  return JSON.parse(line!).command as number;
}
