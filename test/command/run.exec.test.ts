/** `run --exec` replaces the wrapper with the command. And the descriptors that a command gets and leaves. */
import { describe, expect, test } from "bun:test";
import { chmodSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { alive, descriptorsOf } from "../support/proc.ts";
import { childrenOf, command, exclusive, start } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const here = process.platform === "linux" && required("pgrep", "procps") && required("bash", "bash");

/** Those of the processes that run our binary. */
const runningExclusive = (within: number[]) =>
  within.filter((pid) => {
    try {
      return readlinkSync(`/proc/${pid}/exe`) === binary;
    } catch {
      return false;
    }
  });

describe.if(here)("--exec", () => {
  test("no wrapper is left; the pid in the record is that of the command; status, list and stop work", async () => {
    using dir = new TempDir();
    await using holder = start(
      ["run", "--exec", "--label", "it", "t", "--", "sh", "-c", "echo $$; (trap '' TERM; exec sleep 60); :"],
      { dir },
    );
    await holder.says("\n");
    const pid = Number(holder.stdout);
    expect(pid).toBe(holder.pid);
    expect(readFileSync(dir.lockfile("t"), "utf8").split("\n")[0]).toBe(String(pid));
    const children = childrenOf(pid);
    expect(runningExclusive([pid, ...children])).toEqual([]);
    const status = await exclusive(["status", "--json", "t"], { dir });
    expect(JSON.parse(status.stdout)).toMatchObject({
      state: "held",
      holder: { pid, alive: true, label: "it" },
    });
    const list = await exclusive(["list", "--json"], { dir });
    expect(JSON.stringify(JSON.parse(list.stdout))).toContain(`"pid":${pid}`);
    expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 75 });
    // The last process that has the descriptor holds the lock: here a child of the command that ignores SIGTERM.
    const [child] = children;
    const stopping = start(["stop", "t"], { dir });
    expect(await holder.result).toMatchObject({ signal: "SIGTERM" });
    expect(alive(child!)).toBe(true);
    expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 75 });
    process.kill(child!, "SIGKILL");
    await stopping.result;
    expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 0 });
    expect(dir.list()).toEqual([]);
  });

  test("also after a wait, with one thread and no descriptor of the wrapper but that of the lock", async () => {
    using dir = new TempDir();
    await using first = start(["run", "t", "--", "sh", "-c", "echo begun; exec sleep 60"], { dir });
    await first.says("begun");
    for (const options of [["-w"], ["-t", "1m"], ["--if-held", "coalesce"]]) {
      await using second = start(
        ["run", "--exec", ...options, "t", "--", "sh", "-c", "echo begun; exec sleep 60"],
        { dir },
      );
      if (first.running) {
        await until(() => readFileSync("/proc/locks", "utf8").includes(` ${second.pid} `), "the waiter");
        first.kill();
      }
      await second.says("begun");
      expect(readdirSync(`/proc/${second.pid}/task`).length).toBe(1);
      // sleep(1) opens files of its locale first
      const descriptors = () => descriptorsOf(second.pid).slice(3);
      await until(
        () => Bun.deepEquals(descriptors(), [dir.lockfile("t")]),
        "no descriptor but the lock's",
        () => descriptors().join("\n"),
      );
      expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 75 });
      second.kill("SIGKILL");
      await second.result;
    }
    expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 0 });
    expect(dir.list()).toEqual([]);
  });

  test("socket activation: LISTEN_PID is the command's pid, and descriptor 3 is there", async () => {
    using dir = new TempDir();
    const script = `export LISTEN_FDS=1 LISTEN_PID=$$; exec 3</etc/hostname; exec ${binary} run --exec t -- sh -c 'test $$ = $LISTEN_PID && cat <&3'`;
    const { stdout } = await command(["bash", "-c", script], { dir });
    expect(stdout).toBe(readFileSync("/etc/hostname", "utf8"));
  });

  test("the environment is that of the wrapper, plus the name of the lock", async () => {
    using dir = new TempDir();
    const script = `export BAD=$'a\\xff' EXCLUSIVE_NAME=old; exec ${binary} run --exec t env`;
    const { stdout } = await command(["bash", "-c", script], { dir });
    const names = stdout.split("\n").filter((line) => /^(BAD|EXCLUSIVE_(NAME|LOCKFILE))=/.test(line));
    expect(names.sort()).toEqual([
      "BAD=a\ufffd",
      `EXCLUSIVE_LOCKFILE=${dir.lockfile("t")}`,
      "EXCLUSIVE_NAME=t",
    ]);
  });
});

describe.if(here)("the command is found as a shell finds it", () => {
  test("a script without #! in a relative directory of PATH has a relative $0", async () => {
    using dir = new TempDir();
    await Bun.write(dir.file("bin/script"), 'echo "$0 $1"\n', { mode: 0o755 });
    chmodSync(dir.file("bin/script"), 0o755);
    const env = { PATH: `/nowhere:bin:${process.env.PATH}` };
    const bare = await command(["env", "script", "a"], { cwd: dir.path, env });
    expect(bare.stdout).toBe("bin/script a\n");
    for (const mode of [[], ["--exec"]]) {
      const wrapped = await exclusive(["run", ...mode, "t", "script", "a"], { dir, cwd: dir.path, env });
      expect(wrapped).toEqual(bare);
    }
  });
});

describe.if(here)("descriptors", () => {
  test("--close: the command does not have the lock's descriptor, and the lock is held", async () => {
    using dir = new TempDir();
    await using holder = start(["run", "--close", "t", "--", "sh", "-c", "echo begun; exec sleep 60"], {
      dir,
    });
    await holder.says("begun");
    const [pid] = childrenOf(holder.pid);
    expect(descriptorsOf(pid!).filter((link) => link.includes("exclusive_"))).toEqual([]);
    expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 75 });
    expect(await exclusive(["run", "-o", "--exec", "t", "true"], { dir })).toMatchObject({ status: 64 });
  });

  test("process substitution, a pipe into it, and the end of the input", async () => {
    using dir = new TempDir();
    for (const mode of ["", "--exec"]) {
      const script = `echo piped | ${binary} run ${mode} t -- cat - <(echo one) <(echo two)`;
      expect(await command(["bash", "-c", script], { dir })).toMatchObject({
        status: 0,
        stdout: "piped\none\ntwo\n",
      });
    }
  });

  test.if(required("make", "make"))("the jobserver of make reaches a wrapped make", async () => {
    using dir = new TempDir();
    using source = new TempDir();
    await Bun.write(source.file("Makefile"), `all:\n\t+@${binary} run t -- $(MAKE) -s -f sub.mk\n`);
    await Bun.write(source.file("sub.mk"), "all: a b c\na b c:\n\t@echo $@\n");
    const { stdout, stderr, status } = await command(["make", "-j3", "-s"], { dir, cwd: source.path });
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(
      stdout
        .split("\n")
        .filter((line) => line.length === 1)
        .sort(),
    ).toEqual(["a", "b", "c"]);
  });

  test("the wrapper does not keep open an output that the command closes", async () => {
    using dir = new TempDir();
    const done = dir.file("done");
    // cat ends when the last writer has closed the pipe; the command goes on.
    const script = `exec 3> >(cat; echo three >>${done}); ${binary} run t -- sh -c 'exec 1>&- 3>&-; echo ready >>${done}; sleep 60' 3>&3 | (cat; echo one >>${done}) & exec 3>&-; wait`;
    await using shell = start(["run", "outer", "--", "setsid", "bash", "-c", script], { dir });
    await until(
      async () => (await Bun.file(done).exists()) && (await Bun.file(done).text()).split("\n").length === 4,
      "both ends",
      () => shell.stderr,
    );
    await command(["bash", "-c", `${binary} stop --dir ${dir.path} t`]);
    await shell.result;
    expect(dir.list()).toEqual(["done"]);
  });

  test("a daemon that the command leaves behind does not keep the lock", async () => {
    using dir = new TempDir();
    const { stdout, status } = await exclusive(
      ["run", "t", "--", "sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"],
      { dir },
    );
    expect(status).toBe(0);
    expect(alive(Number(stdout))).toBe(true);
    expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 0 });
    process.kill(Number(stdout));
    expect(dir.list()).toEqual([]);
  });
});
