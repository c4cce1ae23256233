/** `exclusive flock`: beside other programs on one file, waiting, newer options, and intended differences. */
import { describe, expect, test } from "bun:test";
import { existsSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { waiters } from "../support/proc.ts";
import { command, Process } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const linux = process.platform === "linux";

/** A directory with `exclusive` as `flock`, and other programs that take the same lock. */
class Box extends TempDir {
  constructor() {
    super();
    symlinkSync(binary, this.file("flock"));
    writeFileSync(this.file("f"), "content\n");
    writeFileSync(this.file("hold"), "");
    writeFileSync(
      this.file("take.py"),
      `import fcntl, os, sys, time
f = open("f")
try:
    fcntl.flock(f, (fcntl.LOCK_SH if sys.argv[1] == "-s" else fcntl.LOCK_EX) | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(1)
print("held", flush=True)
while os.path.exists(sys.argv[2]):
    time.sleep(0.01)
`,
    );
  }
  /** Runs a shell script here, with our `flock` first in PATH. */
  start(script: string, shell: string[] = ["bash"]): Process {
    return new Process([...shell, "-c", script], {
      cwd: this.path,
      env: { PATH: `${this.path}:${process.env.PATH}`, LC_ALL: "C", SHELL: "/bin/sh" },
    });
  }
  sh(script: string, shell?: string[]) {
    return this.start(script, shell).result;
  }
  /** Lets the holder end. */
  letGo(): void {
    rmSync(this.file("hold"), { force: true });
  }
  override [Symbol.dispose](): void {
    this.letGo();
    super[Symbol.dispose]();
  }
}

const HOLD = "echo held; while [ -e hold ]; do sleep 0.01; done";

describe("beside other programs on one file", () => {
  const system = required("flock", "util-linux") ? Bun.which("flock")! : "";
  const python = required("python3", "python3");
  /** Each takes the lock without waiting, prints that, and holds it until the file `hold` is deleted. */
  const takers: Record<string, (mode: string, until: string) => readonly string[]> = {
    ours: (mode, until) => ["./flock", mode, "-n", "f", "-c", HOLD.replace("hold ", `${until} `)],
    ...(system && {
      theirs: (mode: string, until: string) => [
        system,
        mode,
        "-n",
        "f",
        "-c",
        HOLD.replace("hold ", `${until} `),
      ],
    }),
    ...(python && { python3: (mode: string, until: string) => ["python3", "take.py", mode, until] }),
  };
  for (const [name, ...argv] of [["bash"], ["dash"], ["busybox sh", "busybox", "sh"]] as const) {
    const program = argv.length > 0 ? [...argv] : [name];
    if (!required(program[0]!, program[0] === "busybox" ? "busybox-static" : program[0]!)) continue;
    takers[`ours in ${name}`] = (mode, until) => [
      ...program,
      "-c",
      `exec 9<f; ./flock ${mode} -n 9 || exit 1; ${HOLD.replace("hold ", `${until} `)}`,
    ];
  }

  for (const first of Object.keys(takers)) {
    test(`${first} holds it`, async () => {
      using box = new Box();
      const options = { cwd: box.path, env: { SHELL: "/bin/sh" } };
      for (const held of ["-x", "-s"]) {
        writeFileSync(box.file("hold"), "");
        await using holder = new Process([...takers[first]!(held, "hold")], options);
        await holder.says("held");
        for (const second of Object.keys(takers)) {
          if (!first.startsWith("ours") && !second.startsWith("ours")) continue;
          for (const mode of ["-x", "-s"]) {
            const { status } = await command([...takers[second]!(mode, "nothing")], options);
            const expected = held === "-s" && mode === "-s" ? 0 : 1;
            expect({ held, second, mode, status }).toEqual({ held, second, mode, status: expected });
          }
        }
        box.letGo();
        expect((await holder.result).status).toBe(0);
      }
      expect(await Bun.file(box.file("f")).text()).toBe("content\n");
    });
  }
});

describe("waiting", () => {
  test("it gets the lock when the holder releases it", async () => {
    using box = new Box();
    await using holder = box.start(`flock f -c '${HOLD}'`);
    await holder.says("held");
    const waiting = [
      "flock f echo got",
      "flock -w 30.5 f echo got",
      "flock -s f echo got",
      "flock -w 30 9 9<f && echo got",
    ];
    const processes = waiting.map((script) => box.start(script));
    if (linux) await until(() => waiters(box.file("f")) === waiting.length, "all to wait");
    box.letGo();
    for (const process of processes)
      expect(await process.result).toMatchObject({ status: 0, stdout: "got\n" });
  });

  test("it gives up after the time, not before", async () => {
    using box = new Box();
    await using holder = box.start(`flock f -c '${HOLD}'`);
    await holder.says("held");
    const begun = performance.now();
    const { status, stderr } = await box.sh("flock -w 0.3 -E 7 --verbose f true");
    expect({ status, stderr }).toEqual({ status: 7, stderr: "flock: timeout while waiting to get lock\n" });
    expect(performance.now() - begun).toBeGreaterThanOrEqual(300);
  });

  test.if(required("python3", "python3"))("it gives up also if SIGALRM is blocked or ignored", async () => {
    using box = new Box();
    await using holder = box.start(`flock f -c '${HOLD}'`);
    await holder.says("held");
    for (const prepare of [
      "pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])",
      "signal(signal.SIGALRM, signal.SIG_IGN)",
    ]) {
      const code = `import os, signal; signal.${prepare}; os.execvp("./flock", ["flock", "-w", "0.05", "f", "true"])`;
      expect((await box.sh(`exec python3 -c '${code}'`)).status).toBe(1);
    }
  });

  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    test(`${signal} ends a wait`, async () => {
      using box = new Box();
      await using holder = box.start(`flock f -c '${HOLD}'`);
      await holder.says("held");
      await using waiter = box.start("echo begun; exec flock f echo got");
      await waiter.says("begun");
      await until(async () => {
        const line = await Bun.file(`/proc/${waiter.pid}/wchan`).text();
        return !linux || line.startsWith("locks_");
      }, "it to wait");
      waiter.kill(signal);
      expect(await waiter.result).toMatchObject({ signal, stdout: "begun\n" });
    });
  }
});

describe("the command", () => {
  test("with -F it replaces the process of flock", async () => {
    using box = new Box();
    await using process = box.start("exec flock -F f sh -c 'echo $$'");
    const { stdout } = await process.result;
    expect(stdout).toBe(`${process.pid}\n`);
  });

  test("a daemon of the command keeps the lock, but not with -o", async () => {
    using box = new Box();
    const leave = `sh -c '(while [ -e hold ]; do sleep 0.01; done) >/dev/null 2>&1 &'`;
    expect((await box.sh(`flock -o f ${leave}; flock -n f true`)).status).toBe(0);
    expect((await box.sh(`flock f ${leave}; flock -n f true`)).status).toBe(1);
  });

  test("a script without #! in PATH runs", async () => {
    using box = new Box();
    await box.sh("mkdir bin; echo 'echo found $1' >bin/plain; chmod +x bin/plain");
    for (const option of ["", "-F"]) {
      const { stdout } = await box.sh(`PATH=$PWD/bin:$PATH; flock ${option} f plain it`);
      expect({ option, stdout }).toEqual({ option, stdout: "found it\n" });
    }
  });

  // Differences from flock(1), docs/flock.md.
  test("a signal sent to flock reaches it, and the status is the command's", async () => {
    using box = new Box();
    await using process = box.start(`exec flock f sh -c 'trap "echo caught; exit 9" TERM; ${HOLD}'`);
    await process.says("held");
    process.kill("SIGTERM");
    expect(await process.result).toMatchObject({ status: 9, stdout: "held\ncaught\n" });
  });

  test("a signal that ends both ends flock by that signal, as a shell's loop expects", async () => {
    using box = new Box();
    await using process = box.start(`exec flock f sh -c '${HOLD}'`);
    await process.says("held");
    process.kill("SIGTERM");
    expect((await process.result).signal).toBe("SIGTERM");
  });

  test("--verbose reports each step in order, with -F too", async () => {
    using box = new Box();
    for (const option of ["", "-F"]) {
      const { stdout } = await box.sh(`flock ${option} --verbose f echo ran`);
      expect(stdout).toMatch(/^flock: getting lock took \d+\.\d{6} seconds\nflock: executing echo\nran\n$/);
    }
  });

  test("--help and --version are on stdout; -V names the program", async () => {
    using box = new Box();
    const help = await box.sh("flock --help");
    expect(help).toMatchObject({ status: 0, stderr: "" });
    expect(help.stdout).toStartWith("\nUsage:\n flock [options] <file>|<directory> <command>");
    expect(help.stdout).toContain("--length <number>");
    expect((await box.sh(`${binary} flock -h`)).stdout).toContain(" exclusive flock [options]");
    expect((await box.sh("flock -V")).stdout).toMatch(/^flock from exclusive .*, as in util-linux /);
  });

  test("--fd locks a descriptor for a command, which inherits it under its number", async () => {
    using box = new Box();
    const inside = `sh -c 'flock -n f true; echo $?; flock -u 9; flock -n f echo free'`;
    expect((await box.sh(`flock --fd 9 ${inside} 9<f`)).stdout).toBe("1\nfree\n");
    expect((await box.sh("flock --fd=9 -F sh -c 'flock -n f true; echo $?' 9<f")).stdout).toBe("1\n");
    expect(
      (await box.sh("flock --fd 9 -o sh -c ': <&9' 9<f 2>/dev/null || flock -n f echo free")).stdout,
    ).toBe("free\n");
    expect((await box.sh("flock --fd 9 -c 'echo ran' 9<f")).stdout).toBe("ran\n");
    expect((await box.sh("(flock --fd 9; flock -n f true; echo $?) 9<f")).stdout).toBe("1\n");
    expect(await box.sh("flock --fd 9x true")).toMatchObject({
      status: 64,
      stderr: "flock: bad file descriptor: '9x'\n",
    });
    expect(await box.sh("flock --fd 9 true")).toMatchObject({
      status: 65,
      stderr: "flock: 9: Bad file descriptor\n",
    });
  });
});

describe.if(linux && required("python3", "python3"))("--fcntl", () => {
  const taken = (start: number, length: number) =>
    `python3 -c 'import fcntl; fcntl.lockf(open("f", "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB, ${length}, ${start})' 2>/dev/null; echo $?`;

  test("takes the lock that fcntl(2) takes, and not that of flock(2)", async () => {
    using box = new Box();
    await box.sh(`cat >try <<'EOF'\n${taken(0, 0)}\nEOF`);
    expect((await box.sh("flock --fcntl f sh try")).stdout).toBe("1\n");
    expect((await box.sh("flock f sh try")).stdout).toBe("0\n");
    expect((await box.sh("flock --fcntl f flock -n f echo other")).stdout).toBe("other\n");
    expect((await box.sh("flock --fcntl f flock --fcntl -n -E 5 f true")).status).toBe(5);
    expect((await box.sh("flock --fcntl f flock --fcntl -w 0.05 -E 6 f true")).status).toBe(6);
    expect((await box.sh("flock --fcntl -s f flock --fcntl -sn f echo shared")).stdout).toBe("shared\n");
    expect((await box.sh("(flock --fcntl 9; sh try; flock --fcntl -u 9; sh try) 9<>f")).stdout).toBe(
      "1\n0\n",
    );
    expect(await Bun.file(box.file("f")).text()).toBe("content\n");
  });

  test("an exclusive lock needs a writable file", async () => {
    using box = new Box();
    expect(await box.sh("flock --fcntl 9 9<f")).toMatchObject({
      status: 65,
      stderr: "flock: 9: Bad file descriptor\n",
    });
    expect(await box.sh("flock --fcntl . true")).toMatchObject({
      status: 65,
      stderr: "flock: .: Is a directory\n",
    });
    expect((await box.sh("flock --fcntl -s . echo ran")).stdout).toBe("ran\n");
  });

  test("--start and --length lock a range, and imply it", async () => {
    using box = new Box();
    const ranges = [taken(0, 10), taken(10, 5), taken(14, 1), taken(15, 0)];
    await box.sh(`cat >try <<'EOF'\n${ranges.join("\n")}\nEOF`);
    for (const range of ["--start 10 --length 5", "--start=0xa --length=05", "--sta ' 10' --le +5"])
      expect((await box.sh(`flock ${range} f sh try`)).stdout).toBe("0\n1\n1\n0\n");
    await box.sh(`cat >try <<'EOF'\n${[taken(1023, 1), taken(1024, 1)].join("\n")}\nEOF`);
    for (const start of ["1K", "1KiB", "1k"])
      expect((await box.sh(`flock --start ${start} f sh try`)).stdout).toBe("0\n1\n");
    await box.sh(`cat >try <<'EOF'\n${[taken(1499, 1), taken(1500, 1)].join("\n")}\nEOF`);
    expect((await box.sh("flock --start 1.5KB f sh try")).stdout).toBe("0\n1\n");
  });

  test.each([
    ["--start x", "invalid as start offset: 'x': Invalid argument"],
    ["--start -5", "invalid as start offset: '-5': Invalid argument"],
    ["--start ''", "invalid as start offset: '': Invalid argument"],
    ["--length 1.5", "invalid as length of lock range: '1.5': Invalid argument"],
    ["--length 09", "invalid as length of lock range: '09': Invalid argument"],
    ["--length 99Y", "invalid as length of lock range: '99Y': Numerical result out of range"],
  ])("%s is refused", async (options, message) => {
    using box = new Box();
    expect(await box.sh(`flock ${options} f true`)).toMatchObject({
      status: 64,
      stderr: `flock: ${message}\n`,
    });
  });
});

describe("the manual page's examples", () => {
  for (const [mode, printed] of [
    ["", "1\n"],
    ["-s ", "\n0\n"],
  ] as const) {
    test(`flock ${mode}/tmp -c cat`, async () => {
      using box = new Box();
      const script = `mkdir tmp; mkfifo in
        flock ${mode}tmp -c cat <in & exec 7>in
        until ! flock -n tmp true; do sleep 0.01; done
        flock ${mode}-w .007 tmp -c echo; /bin/echo $?
        exec 7>&-; wait`;
      expect(await box.sh(script)).toMatchObject({ stdout: printed, stderr: "" });
    });
  }

  test("flock -x local-lock-file echo 'a b c'", async () => {
    using box = new Box();
    expect((await box.sh("flock -x local-lock-file echo 'a b c'")).stdout).toBe("a b c\n");
    expect(existsSync(box.file("local-lock-file"))).toBe(true);
  });

  test("the form inside shell scripts", async () => {
    using box = new Box();
    const script = `(
      flock -n 9 || exit 1
      flock -n mylockfile echo taken || echo held
    ) 9>mylockfile
    flock mylockfile sh -c '( flock -n 9 || exit 1; ) 9>mylockfile'; echo $?`;
    for (const shell of ["bash", "dash"]) expect((await box.sh(script, [shell])).stdout).toBe("held\n1\n");
  });

  test("the boilerplate at the top of a script", async () => {
    using box = new Box();
    writeFileSync(
      box.file("script"),
      `#!/bin/sh
[ "\${FLOCKER}" != "$0" ] && exec env FLOCKER="$0" flock -en "$0" "$0" "$@" || :
echo "run with $*"
[ "$1" = again ] || env -u FLOCKER "$0" again || echo refused
`,
      { mode: 0o755 },
    );
    expect(await box.sh("./script a b")).toMatchObject({ status: 0, stdout: "run with a b\nrefused\n" });
  });

  test("without spawning a subprocess", async () => {
    using box = new Box();
    expect((await box.sh("exec 4<>mylockfile; flock -n 4; flock -n mylockfile true; echo $?")).stdout).toBe(
      "1\n",
    );
  });
});
