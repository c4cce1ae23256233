/** The promises of `exclusive run`, as a user would try them in a shell. */
import { describe, expect, test } from "bun:test";
import { chmodSync, lstatSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { alive } from "../support/proc.ts";
import { command, exclusive, Process, start } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const linux = process.platform === "linux";

/** Runs the same shell line with and without the wrapper. `$E` stands for the wrapper. */
async function wrappedAndBare(dir: TempDir, shell: string, line: string) {
  const run = (wrapper: string) =>
    command([shell, "-c", line.replaceAll("$E", wrapper)], { dir, env: { B: binary } });
  return { wrapped: await run(`"$B" run t --`), bare: await run("env") };
}

const EMPTY = { stdout: "", stderr: "" };

describe("the lock is held as long as the command runs", () => {
  test("a second run is refused with 75 and the holder's pid, also after kill -9 of the wrapper; later it runs", async () => {
    using dir = new TempDir();
    const no = () => exclusive(["run", "t", "--", "echo", "no"], { dir });
    await using wrapper = start(["run", "t", "--", "sh", "-c", "echo $$; exec sleep 300"], { dir });
    await wrapper.says("\n");
    const sleep = Number(wrapper.stdout);
    try {
      const refused = await no();
      expect(refused).toMatchObject({ status: 75, stdout: "" });
      expect(refused.stderr).toMatch(
        new RegExp(`^exclusive: 't' is held by pid ${wrapper.pid} for \\S+: sleep 300\n$`),
      );

      wrapper.kill("SIGKILL");
      await wrapper.result;
      expect(alive(sleep)).toBe(true);
      const orphaned = await no();
      expect(orphaned).toMatchObject({ status: 75, stdout: "" });
      expect(orphaned.stderr).toContain(`is held by pid ${sleep} `);
    } finally {
      process.kill(sleep, "SIGKILL");
    }
    await until(() => !alive(sleep), "the end of sleep");
    expect(await no()).toEqual({ status: 0, signal: null, stdout: "no\n", stderr: "" });
    expect(dir.list()).toEqual([]);
  });

  test("a daemon that the command leaves behind does not keep the lock", async () => {
    using dir = new TempDir();
    const left = await exclusive(
      ["run", "t", "--", "sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!; exit 3"],
      { dir },
    );
    const daemon = Number(left.stdout);
    try {
      expect(left).toMatchObject({ status: 3, stderr: "" });
      expect(await exclusive(["run", "t", "--", "echo", "free"], { dir })).toMatchObject({
        stdout: "free\n",
      });
      expect(alive(daemon)).toBe(true);
    } finally {
      process.kill(daemon);
    }
    expect(dir.list()).toEqual([]);
  });

  test("status and path agree with the lock file", async () => {
    using dir = new TempDir();
    const path = `${dir.path}/exclusive_a+b.lock`;
    expect(await exclusive(["path", "a b"], { dir })).toMatchObject({ status: 0, stdout: `${path}\n` });
    expect(await exclusive(["status", "a b"], { dir })).toMatchObject({
      status: 3,
      stdout: "'a b' is free\n",
    });
    await using held = start(["run", "a b", "--", "sh", "-c", "echo begun; exec sleep 60"], { dir });
    await held.says("begun");
    const status = await exclusive(["status", "a b", "--json"], { dir });
    expect(status.status).toBe(0);
    expect(JSON.parse(status.stdout)).toMatchObject({
      name: "a b",
      state: "held",
      lockfile: path,
      holder: { pid: held.pid },
    });
    expect(readFileSync(path, "utf8")).toStartWith(`${held.pid}\n`);
  });
});

describe("the exit status is the command's", () => {
  test.each([0, 1, 2, 64, 75, 126, 127, 128, 255])("%d", async (status) => {
    using dir = new TempDir();
    const run = await exclusive(["run", "t", "--", "sh", "-c", `exit ${status}`], { dir });
    expect(run).toEqual({ status, signal: null, ...EMPTY });
  });

  test.each(["TERM", "INT", "HUP", "QUIT", "KILL", "SEGV", "ABRT", "USR1", "PIPE"])(
    "killed by SIG%s",
    async (signal) => {
      using dir = new TempDir();
      const run = await exclusive(["run", "t", "--", "sh", "-c", `kill -${signal} $$`], { dir });
      expect(run).toEqual({ status: null, signal: `SIG${signal}`, ...EMPTY });
      expect(dir.list()).toEqual([]);
    },
  );

  test("127 for a command that is not found, 126 for one that cannot be executed; the lock is free again", async () => {
    using dir = new TempDir();
    writeFileSync(dir.file("plain"), "#!/bin/sh\necho no\n");
    const cases = [
      ["nosuch-command", 127, "No such file or directory"],
      [dir.file("nosuch"), 127, "No such file or directory"],
      [dir.file("plain"), 126, "Permission denied"],
      [dir.path, 126, "Permission denied"],
      [`${dir.file("plain")}/x`, 126, "Not a directory"],
    ] as const;
    for (const [path, status, why] of cases) {
      const run = await exclusive(["run", "t", "--", path], { dir });
      expect(run).toEqual({
        status,
        signal: null,
        stdout: "",
        stderr: `exclusive: cannot run ${path}: ${why}\n`,
      });
    }
    expect(dir.list()).toEqual(["plain"]);
  });
});

describe("the wrapper is transparent to the command", () => {
  test("stdin, stdout and stderr are its own", async () => {
    using dir = new TempDir();
    const bytes = "\x01\n".repeat(50_000);
    const script = "cat; echo error >&2";
    const run = await exclusive(["run", "t", "--", "sh", "-c", script], { dir, stdin: bytes });
    expect(run).toEqual({ status: 0, signal: null, stdout: bytes, stderr: "error\n" });
  });

  test("a process substitution of bash reaches the command", async () => {
    using dir = new TempDir();
    const { wrapped } = await wrappedAndBare(dir, "bash", "$E cat <(echo hi) <(echo there)");
    expect(wrapped).toEqual({ status: 0, signal: null, stdout: "hi\nthere\n", stderr: "" });
  });

  test.each(["ulimit -Sn 256", "ulimit -n 64", "ulimit -Sn 1000; ulimit -Sc 0", "true"])(
    "limits: after %s",
    async (limit) => {
      using dir = new TempDir();
      const { wrapped, bare } = await wrappedAndBare(
        dir,
        "bash",
        `${limit}; $E bash -c 'ulimit -Sa; ulimit -Ha'`,
      );
      expect(bare.stdout).toContain("open files");
      expect(wrapped).toEqual(bare);
    },
  );

  test.if(linux).each(["true", "trap '' HUP", "trap '' INT QUIT PIPE USR1 CHLD TSTP XFSZ"])(
    "signals: ignored and blocked ones after %s",
    async (trap) => {
      using dir = new TempDir();
      const { wrapped, bare } = await wrappedAndBare(
        dir,
        "sh",
        `${trap}; $E grep -E '^Sig(Ign|Blk):' /proc/self/status`,
      );
      expect(bare.stdout).toContain("SigBlk");
      // Bun ignores these two before our code runs, so their former state is lost: the command gets the default.
      const known = (text: string) =>
        text.replace(/SigIgn:\s+(\w+)/, (_, set) =>
          (BigInt(`0x${set}`) & ~(1n << 12n) & ~(1n << 24n)).toString(16),
        );
      expect(known(wrapped.stdout)).toBe(known(bare.stdout));
      if (trap === "true" || trap.endsWith("HUP")) expect(wrapped.stdout).toBe(bare.stdout);
    },
  );

  test("descriptors, arguments, directory, umask and environment are the same", async () => {
    using dir = new TempDir();
    const line = `umask 027; cd /; A='x  y' $E sh -c 'umask; pwd; printf "<%s>" "$A" "$@" "" ; env | grep -v "^EXCLUSIVE_\\|^_=" | sort' 0 'a b' '' '*' '--' 2>&1`;
    const { wrapped, bare } = await wrappedAndBare(dir, "bash", line);
    expect(bare.stdout).toContain("<x  y><a b><><*><--><>");
    expect(wrapped).toEqual(bare);
  });

  test("and the command gets the name and the file of the lock", async () => {
    using dir = new TempDir();
    const show = ["sh", "-c", 'echo "$EXCLUSIVE_NAME"; echo "$EXCLUSIVE_LOCKFILE"'];
    const { stdout } = await exclusive(["run", "a b", "--", ...show], {
      dir,
      env: { EXCLUSIVE_NAME: "outer" },
    });
    expect(stdout).toBe(`a b\n${dir.file("exclusive_a+b.lock")}\n`);
    // Also with a relative directory: the command may change its own.
    mkdirSync(dir.file("sub"));
    const relative = await exclusive(["run", "--dir", "sub", "t", "--", ...show], { cwd: dir.path });
    expect(relative.stdout).toMatch(/^t\n\/.*\/sub\/exclusive_t\.lock\n$/);
  });

  test("a .env and a bunfig.toml with a preload in the current directory change nothing", async () => {
    using dir = new TempDir();
    writeFileSync(dir.file(".env"), `SNEAKED=in\nEXCLUSIVE_DIR=/nonexistent\n`);
    writeFileSync(dir.file("bunfig.toml"), `preload = ["./evil.ts"]\n[run]\npreload = ["./evil.ts"]\n`);
    writeFileSync(dir.file("evil.ts"), `console.log("evil"); process.exit(99);`);
    writeFileSync(dir.file("tsconfig.json"), "no JSON");
    writeFileSync(dir.file("package.json"), "no JSON");
    const args = ["run", "t", "--", "sh", "-c", 'echo "[$SNEAKED] $EXCLUSIVE_LOCKFILE"'];
    const run = await exclusive(args, { dir, cwd: dir.path });
    expect(run).toEqual({
      status: 0,
      signal: null,
      stdout: `[] ${dir.file("exclusive_t.lock")}\n`,
      stderr: "",
    });
    const path = await exclusive(["path", "t"], { dir, cwd: dir.path });
    expect(path).toMatchObject({ status: 0, stdout: `${dir.file("exclusive_t.lock")}\n` });
  });
});

describe("the command line", () => {
  test("options end at NAME: a later --help belongs to the command, with or without --", async () => {
    using dir = new TempDir();
    writeFileSync(dir.file("script"), `#!/bin/sh\necho "script:" "$@"\n`);
    chmodSync(dir.file("script"), 0o755);
    for (const args of [
      ["run", "t", "./script"],
      ["run", "t", "--", "./script"],
      ["run", "--", "t", "./script"],
    ]) {
      for (const option of ["--help", "--version", "--wait", "-x", "--"]) {
        const run = await exclusive([...args, option], { dir, cwd: dir.path });
        expect(run).toMatchObject({ status: 0, stdout: `script: ${option}\n`, stderr: "" });
      }
    }
  });

  test.each([
    [["run", "--wiat", "t", "--", "true"], "unknown option --wiat (did you mean --wait?)"],
    [["run", "-X", "t", "--", "true"], "unknown option -X"],
    [["run", "t"], "missing COMMAND"],
    [["run", "t", "--"], "missing COMMAND"],
    [["run"], "missing NAME"],
    [["run", "", "--", "true"], "must not be empty"],
    [["run", "--timeout", "soon", "t", "--", "true"], "not a duration: 'soon'"],
    [["run", "--timeout"], "--timeout needs a value"],
    [["run", "--wait=yes", "t", "--", "true"], "--wait takes no value"],
    [["run", "--slots", "0", "t", "--", "true"], "slots"],
    [["rum", "t", "--", "true"], "unknown command 'rum' (did you mean run?)"],
    [[""], "missing COMMAND"],
    [["status"], "missing NAME"],
    [["path", "a", "b"], "one NAME at a time"],
  ])("%j exits 64 with what was wrong", async (args, text) => {
    using dir = new TempDir();
    const run = await exclusive(args, { dir });
    expect(run).toMatchObject({ status: 64, stdout: "" });
    expect(run.stderr).toStartWith("exclusive: ");
    expect(run.stderr).toContain(text);
    expect(dir.list()).toEqual([]);
  });
});

test.each([["run --wiat t -- true"], ["run t"], ["run"]])("%p shows the usage line", async (line) => {
  const { status, stderr } = await exclusive(line.split(" "));
  expect(status).toBe(64);
  expect(stderr).toEndWith("\nUsage: exclusive run [OPTION...] NAME [--] COMMAND [ARG...]\n");
});

test("a wrapper that gets SIGTERM leaves nothing behind", async () => {
  using dir = new TempDir();
  await using wrapper = start(["run", "t", "--", "sleep", "300"], { dir });
  await until(() => dir.list().length > 0, "the lock file");
  expect(lstatSync(dir.file("exclusive_t.lock")).mode & 0o022).toBe(0);
  await until(
    async () => (await exclusive(["status", "t"], { dir })).stdout.includes("sleep 300"),
    "the command",
  );
  wrapper.kill("SIGTERM");
  expect(await wrapper.result).toMatchObject({ signal: "SIGTERM" });
  expect(dir.list()).toEqual([]);
});

test("a wrapper runs in a wrapper", async () => {
  using dir = new TempDir();
  await using outer = new Process(
    [binary, "run", "a", "--", binary, "run", "b", "--", "sh", "-c", "echo in; exec sleep 60"],
    { dir },
  );
  await outer.says("in");
  for (const name of ["a", "b"]) {
    expect(await exclusive(["run", name, "--", "true"], { dir })).toMatchObject({ status: 75 });
  }
  const again = await exclusive(["run", "c", "--", binary, "run", "c", "--", "echo", "no"], { dir });
  expect(again).toMatchObject({ status: 75, stdout: "" }); // held by the outer wrapper: no deadlock, a clear refusal
  outer.kill("SIGTERM");
  expect(await outer.result).toMatchObject({ signal: "SIGTERM" });
  expect(dir.list()).toEqual([]);
});

test("a signal at the moment when the wait ends and the command begins does not end the wrapper", async () => {
  using dir = new TempDir();
  for (let round = 0; round < 5; round++) {
    await using first = start(["run", "t", "--", "sh", "-c", "echo begun; exec sleep 60"], { dir });
    await first.says("begun");
    // The command sends it to the wrapper alone, which must go on: it forwards the signal, as it forwards every other.
    const script = "trap '' TERM; kill -TERM $PPID; sleep 0.1; exit 3";
    await using second = start(["run", "--wait", "t", "--", "sh", "-c", script], { dir });
    const waits = async () =>
      (await exclusive(["status", "t", "--json"], { dir })).stdout.includes('"waiters":1');
    await until(waits, "a waiter");
    first.kill();
    expect(await second.result).toMatchObject({ status: 3, signal: null });
    expect(dir.list()).toEqual([]);
  }
});
