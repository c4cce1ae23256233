/** The wrapper on a terminal: keys, window size, hangup and job control. */
import { describe, expect, test } from "bun:test";
import { binary } from "../support/paths.ts";
import { alive } from "../support/proc.ts";
import { exclusive, start } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { KEY, TerminalProcess } from "../support/terminal.ts";
import { until } from "../support/until.ts";

const here = process.platform === "linux" && required("python3", "python3") && required("bash", "bash");

/** Prints the signals it gets and the lines it reads; `end` ends it. A line arrives after the keys typed before it. */
const LISTENER = `
import os, signal, sys
def say(number, _):
    size = " %dx%d" % os.get_terminal_size(0) if number == signal.SIGWINCH else ""
    os.write(1, ("<" + signal.Signals(number).name + size + ">").encode())
for name in sys.argv[1:]: signal.signal(getattr(signal, name), say)
os.write(1, b"begun")
while True:
    line = os.read(0, 100).strip()
    if line == b"end" or line == b"": sys.exit(5)
    os.write(1, b"[" + line + b"]")
`;
const listener = (...signals: string[]) => ["python3", "-ISc", LISTENER, ...signals];
const run = (...command: string[]) => [binary, "run", "t", "--", ...command];
const signalsIn = (output: string) => output.match(/<SIG[^>]+>/g) ?? [];

/** An interactive shell with job control: "P> " is its prompt. */
const bash = (dir: TempDir) =>
  new TerminalProcess(["bash", "--norc", "--noprofile", "-i"], {
    dir,
    env: { PS1: "P> ", PATH: `${binary.slice(0, binary.lastIndexOf("/"))}:${process.env.PATH}` },
  });

describe.if(here)("keys", () => {
  for (const [key, signal] of [
    ["CTRL_C", "SIGINT"],
    ["CTRL_BACKSLASH", "SIGQUIT"],
    ["CTRL_Z", "SIGTSTP"],
  ] as const) {
    for (const mode of [[], ["--exec"]]) {
      test(`${key}: ${signal} reaches the command once ${mode}`, async () => {
        using dir = new TempDir();
        await using tty = new TerminalProcess([binary, "run", ...mode, "t", "--", ...listener(signal)], {
          dir,
        });
        await tty.shows("begun");
        tty.type(KEY[key]);
        await tty.shows(`<${signal}>`);
        tty.type("one\n");
        await tty.shows("[one]");
        tty.type("end\n");
        expect(await tty.result).toEqual({ status: 5, signal: null });
        expect(signalsIn(tty.output)).toEqual([`<${signal}>`]);
      });
    }
  }

  test("Ctrl-C ends a command that does not catch it, and the wrapper likewise", async () => {
    using dir = new TempDir();
    await using tty = new TerminalProcess(run("sh", "-c", "echo begun; exec sleep 60"), { dir });
    await tty.shows("begun");
    tty.type(KEY.CTRL_C);
    expect(await tty.result).toEqual({ status: null, signal: "SIGINT" });
    expect(dir.list()).toEqual([]);
  });

  test("Ctrl-D: the command reads the end of its input", async () => {
    using dir = new TempDir();
    await using tty = new TerminalProcess(run("cat"), { dir });
    tty.type("line\n");
    await tty.shows("line\r\nline");
    tty.type(KEY.CTRL_D);
    expect(await tty.result).toEqual({ status: 0, signal: null });
  });
});

describe.if(here)("the window and the hangup", () => {
  test("a resized window: SIGWINCH once, and the new size", async () => {
    using dir = new TempDir();
    await using tty = new TerminalProcess(run(...listener("SIGWINCH")), { dir });
    await tty.shows("begun");
    tty.resize(100, 30);
    await tty.shows("<SIGWINCH 100x30>");
    tty.type("end\n");
    expect(await tty.result).toEqual({ status: 5, signal: null });
    expect(signalsIn(tty.output)).toEqual(["<SIGWINCH 100x30>"]);
  });

  test("the terminal hangs up: command and wrapper end by SIGHUP", async () => {
    using dir = new TempDir();
    await using tty = new TerminalProcess(run("sh", "-c", "echo pid $$; sleep 60; echo no"), { dir });
    const pid = Number((await tty.shows(/pid \d+/)).slice(4));
    tty.hangUp();
    expect(await tty.result).toEqual({ status: null, signal: "SIGHUP" });
    await until(() => !alive(pid), "the command's end");
    expect(dir.list()).toEqual([]);
  });

  test("with nohup the command outlives the terminal, and keeps the lock", async () => {
    using dir = new TempDir();
    await using tty = new TerminalProcess(["nohup", ...run("sh", "-c", "echo pid $$ >pid; sleep 60")], {
      dir,
      cwd: dir.path,
    });
    await until(() => dir.list().includes("pid"), "the command");
    await until(async () => /pid \d+/.test(await Bun.file(dir.file("pid")).text()), "its pid");
    const pid = Number((await Bun.file(dir.file("pid")).text()).slice(4));
    tty.hangUp();
    expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 75 });
    expect(alive(pid)).toBe(true);
    process.kill(pid, "SIGTERM");
    await tty.result;
  });

  test("the command has the terminal: it may turn off the echo, and is in the foreground", async () => {
    using dir = new TempDir();
    const script = `stty -echo; read -r x; stty echo; echo "read $x"; ps -o tpgid=,pgid= -p $$`;
    await using tty = new TerminalProcess(run("sh", "-c", script), { dir });
    await Bun.sleep(300); // the line is read whether or not the echo is off by then
    tty.type("secret\n");
    await tty.shows("read secret");
    const [, terminal, own] = /(\d+) +(\d+)/.exec(await tty.shows(/\d+ +\d+/))!;
    expect(terminal).toBe(own!);
  });
});

describe.if(here)("job control, in an interactive shell", () => {
  test("Ctrl-Z stops wrapper and command, fg resumes both, the exit status arrives", async () => {
    using dir = new TempDir();
    await using tty = bash(dir);
    await tty.shows("P> ");
    tty.type(`exclusive run t -- sh -c 'echo be""gun; read -r x; echo "got $x"; exit 3'; echo "status $?"\n`);
    await tty.shows(/^begun/m);
    for (const round of [1, 2]) {
      tty.type(KEY.CTRL_Z);
      await tty.shows("Stopped");
      await tty.shows("P> ");
      tty.type(`jobs -l #${round}\n`);
      await tty.shows(/Stopped +exclusive run/);
      // A stopped holder still holds the lock.
      expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 75 });
      tty.type("fg\n");
      await tty.shows(/^exclusive run/m);
    }
    tty.type("hello\n");
    await tty.shows("got hello");
    await tty.shows("P> ");
    tty.type("echo =$?=\n");
    await tty.shows("=3=");
    expect(dir.list()).toEqual([]);
  });

  test("bg lets it go on in the background; %1 gets a signal once; reading there stops it", async () => {
    using dir = new TempDir();
    await using tty = bash(dir);
    await tty.shows("P> ");
    tty.type("exclusive run t -- sh -c 'sleep 60; echo no' &\n");
    await tty.shows("P> ");
    tty.type("kill -STOP %1; until jobs | grep Stopp''ed; do sleep 0.1; done\n");
    await tty.shows("Stopped");
    tty.type("bg\n");
    await tty.shows(/&\r\n/);
    tty.type("jobs\n");
    await tty.shows("Running");
    tty.type('kill %1; wait %1; echo "sta""tus $?"\n'); // bash may or may not print "Terminated"
    await tty.shows("status 143");
    expect(dir.list()).toEqual([]);
    tty.type("exclusive run t -- sh -c 'read -r line; echo \"<$line>\"' &\n");
    await tty.shows("P> ");
    tty.type("until jobs | grep -q Stopp''ed; do sleep 0.1; done; fg\n");
    await tty.shows(/^exclusive run t/m);
    tty.type("typed\n");
    await tty.shows("<typed>");
    await until(() => dir.list().length === 0, "the lock to be given back, after the command's last word");
  });

  test("a full-screen program that stops itself (SIGTSTP to its group) comes back with fg", async () => {
    using dir = new TempDir();
    await using tty = bash(dir);
    await tty.shows("P> ");
    tty.type(`exclusive run t -- sh -c 'kill -TSTP 0; echo re""sumed'; echo "status $?"\n`);
    await tty.shows("Stopped");
    await tty.shows("P> ");
    tty.type("fg\n");
    await tty.shows(/^resumed/m);
    await tty.shows("P> ");
    expect(dir.list()).toEqual([]);
  });

  test("a program that stops only itself (SIGSTOP to its own pid) does too", async () => {
    using dir = new TempDir();
    await using tty = bash(dir);
    await tty.shows("P> ");
    tty.type(`exclusive run t -- sh -c 'kill -STOP $$; echo re""sumed'\n`);
    await tty.shows("Stopped");
    await tty.shows("P> ");
    tty.type("fg\n");
    await tty.shows(/^resumed/m);
  });
});

describe.if(here)("job control, a command in a process group of its own", () => {
  const fronts = { run: "exclusive run t --", flock: "exclusive flock job.lock" };
  for (const [what, front] of Object.entries(fronts)) {
    for (const [key, status] of [
      ["CTRL_C", 124 + 6],
      ["CTRL_BACKSLASH", 131],
    ] as const) {
      test(`${what}: ${key} ends timeout(1) and what it runs`, async () => {
        using dir = new TempDir();
        await using tty = bash(dir);
        await tty.shows("P> ");
        tty.type(`cd ${dir.path}; ulimit -c 0; ${front} timeout 60 sh -c 'echo be""gun; exec sleep 60'\n`);
        await tty.shows(/^begun/m);
        tty.type(KEY[key]);
        await tty.shows("P> ");
        tty.type("echo =$?=\n");
        await tty.shows(`=${status}=`);
      });
    }

    test(`${what}: Ctrl-Z stops timeout(1), fg continues it, and it reads from the terminal`, async () => {
      using dir = new TempDir();
      await using tty = bash(dir);
      await tty.shows("P> ");
      tty.type(
        `cd ${dir.path}; ${front} timeout 60 sh -c 'echo be""gun; read -r x; echo "got $x"; read -r x; echo "got $x"'\n`,
      );
      await tty.shows(/^begun/m);
      for (const word of ["one", "two"]) {
        tty.type(KEY.CTRL_Z);
        await tty.shows("Stopped");
        await tty.shows("P> ");
        tty.type("fg\n");
        await tty.shows(/^exclusive/m);
        tty.type(`${word}\n`);
        await tty.shows(`got ${word}`);
      }
      await tty.shows("P> ");
      tty.type("echo =$?=\n");
      await tty.shows("=0=");
    });

    test(`${what}: Ctrl-C reaches it once it has the terminal, and the shell has it back`, async () => {
      using dir = new TempDir();
      await using tty = bash(dir);
      await tty.shows("P> ");
      tty.type(`cd ${dir.path}; ${front} timeout 60 sh -c 'read -r x; echo "got $x"; exec sleep 60'\n`);
      tty.type("word\n");
      await tty.shows("got word");
      tty.type(KEY.CTRL_C);
      await tty.shows("P> ");
      tty.type("read -r y; echo =$y=\n");
      tty.type("again\n");
      await tty.shows("=again=");
    });
  }
});

describe.if(here)("the waiting line", () => {
  test("appears, is redrawn in place, fits the window, and is erased", async () => {
    using dir = new TempDir();
    await using holder = start(
      ["run", "--label", "nightly 日本語", "t", "--", "sh", "-c", "echo begun; exec sleep 60"],
      { dir },
    );
    await holder.says("begun");
    await using tty = new TerminalProcess(
      ["sh", "-c", `echo before; exec ${binary} run -t 5m t -- echo mine`],
      { dir },
    );
    await tty.shows("(0s");
    expect(tty.screen[1]).toStartWith(`exclusive: waiting for 't' (0s of 5m), held by pid ${holder.pid} for`);
    expect(tty.screen[1]!.length).toBeLessThan(80);
    await tty.shows("(1s");
    tty.resize(40, 24);
    await tty.shows("\x1b[K");
    await until(() => Bun.stringWidth(tty.screen[1]!) < 40, "a shorter line");
    expect(tty.screen.slice(2)).toEqual([]);
    tty.resize(300, 24);
    await tty.shows(/\(\d+s of 5m\), held by pid \d+ for \d+s \(nightly 日本語\): sleep 60/);
    holder.kill();
    await tty.shows("mine\r\n");
    expect(await tty.result).toEqual({ status: 0, signal: null });
    expect(tty.screen).toEqual(["before", "mine", ""]);
    expect(dir.list()).toEqual([]);
  });

  test("Ctrl-C, a hangup or SIGTERM ends the wait, and neither the line nor the file of the queue head stays", async () => {
    using dir = new TempDir();
    const slots = ["--slots", "1"]; // with slots, the queue head has a lock of its own
    await using holder = start(["run", ...slots, "t", "--", "sh", "-c", "echo begun; exec sleep 60"], {
      dir,
    });
    await holder.says("begun");
    for (const [signal, send] of [
      ["SIGQUIT", (tty: TerminalProcess) => tty.type(KEY.CTRL_BACKSLASH)],
      ["SIGINT", (tty: TerminalProcess) => tty.type(KEY.CTRL_C)],
      ["SIGTERM", (tty: TerminalProcess) => tty.kill("SIGTERM")],
      ["SIGHUP", (tty: TerminalProcess) => tty.kill("SIGHUP")],
    ] as const) {
      await using tty = new TerminalProcess([binary, "run", "-w", ...slots, "t", "echo", "mine"], { dir });
      await tty.shows("(0s");
      send(tty);
      expect(await tty.result).toEqual({ status: null, signal });
      if (signal === "SIGQUIT") continue; // it asks for a core dump
      expect(tty.screen.join().replace("^C", "")).toBe("");
      expect(dir.list()).toEqual(["exclusive_t.1.lock"]);
    }
    holder.kill();
    await holder.result;
    expect(dir.list()).toEqual([]);
  });

  test("Ctrl-Z stops the wait, fg continues it", async () => {
    using dir = new TempDir();
    await using holder = start(["run", "t", "--", "sh", "-c", "echo begun; exec sleep 60"], { dir });
    await holder.says("begun");
    await using tty = bash(dir);
    await tty.shows("P> ");
    tty.type("exclusive run -w t -- echo mi''ne\n");
    await tty.shows("(0s");
    tty.type(KEY.CTRL_Z);
    await tty.shows("Stopped");
    await tty.shows("P> ");
    tty.type("fg\n");
    await tty.shows("waiting for");
    holder.kill();
    await tty.shows(/^mine|\rmine|Kmine/m);
  });

  test("nothing is shown with --quiet, nor for a short wait", async () => {
    using dir = new TempDir();
    await using holder = start(["run", "t", "--", "sh", "-c", "echo begun; exec sleep 60"], { dir });
    await holder.says("begun");
    await using quiet = new TerminalProcess([binary, "run", "-qt", "0.8", "t", "--", "echo", "mine"], {
      dir,
    });
    expect(await quiet.result).toEqual({ status: 75, signal: null });
    expect(quiet.output).toBe("");
  });

  test("a stderr that is not a terminal gets nothing; with -v one line without control sequences", async () => {
    using dir = new TempDir();
    await using holder = start(["run", "t", "--", "sh", "-c", "echo begun; exec sleep 60"], { dir });
    await holder.says("begun");
    const silent = await exclusive(["run", "-t", "0.4", "t", "--", "echo", "mine"], { dir });
    expect(silent.stderr).toMatch(/^exclusive: timed out after .*\n$/);
    const waited = await exclusive(["run", "-vt", "1.6", "t", "--", "echo", "mine"], { dir });
    expect(waited.status).toBe(75);
    expect(waited.stderr.split("\n").slice(1)).toEqual([
      expect.stringMatching(
        /^exclusive: waiting for 't' \(0s of 1\.6s\), held by pid \d+ for \d+s: sleep 60$/,
      ),
      expect.stringMatching(/^exclusive: timed out after 1s: 't' is held by pid \d+ for \d+s: sleep 60$/),
      "",
    ]);
  });
});
