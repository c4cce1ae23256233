/** The standard streams belong to the caller: no command changes them, or leaves anything behind in them. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { binary, root } from "../support/paths.ts";
import { command, exclusive, hold } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

const here = process.platform === "linux" && required("python3", "python3") && required("bash", "bash");

/**
 * Runs each command on each kind of descriptor, and compares the caller's descriptors before and after: their list, the flags
 * of the open files, their offsets (but where the command has written to a file), the modes of the terminal.
 */
const OBSERVER = `
import fcntl, json, os, pty, socket, subprocess, sys, termios
commands, wrong = json.loads(sys.argv[1]), []
def state(fds, kind):
    listed = sorted(f + " " + os.readlink("/proc/self/fd/" + f) for f in os.listdir("/proc/self/fd") if os.path.lexists("/proc/self/fd/" + f))
    flags = [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in fds]
    offset = os.lseek(fds[0], 0, os.SEEK_CUR) if kind == "file" else 0
    return [listed, flags, offset, str(termios.tcgetattr(fds[0])) if kind == "terminal" else ""]
for kind in ("pipe", "file", "socket", "terminal"):
    for argv in commands:
        keep = []
        if kind == "pipe":
            a, b, c = os.pipe(), os.pipe(), os.pipe()
            fds, keep = [a[0], b[1], c[1]], [a[1], b[0], c[0]]
        elif kind == "file":
            fds = [os.open("file%d" % i, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for i in range(3)]
        elif kind == "socket":
            pairs = [socket.socketpair() for _ in range(3)]
            fds, keep = [p[0].detach() for p in pairs], [p[1].detach() for p in pairs]
        else:
            master, slave = pty.openpty()
            fds, keep = [slave, os.dup(slave), os.dup(slave)], [master]
        before = state(fds, kind)
        child = subprocess.Popen(argv, stdin=fds[0], stdout=fds[1], stderr=fds[2])
        try: child.wait(1.5 if argv[-1] == "--watch" else 30)
        except subprocess.TimeoutExpired:
            child.terminate()
            child.wait()
        after = state(fds, kind)
        if before != after: wrong.append([kind, argv[1:], before, after])
        for fd in fds + keep: os.close(fd)
print(json.dumps(wrong))
`;

const COMMANDS = [
  ["run", "free", "--", "true"],
  ["run", "-v", "free", "--", "true"],
  ["run", "held", "--", "true"],
  ["run", "--timeout", "0.4", "held", "--", "true"],
  ["run", "--exec", "free", "--", "true"],
  ["run"],
  ["status", "held"],
  ["list"],
  ["list", "--json"],
  ["list", "--watch"],
  ["wait", "-t", "0.3", "held"],
  ["path", "held"],
  ["stop", "free"],
  ["doctor", "."],
  ["help"],
  ["--version"],
  ["completion", "bash"],
  ["flock", "-n", "a.lock", "true"],
  [],
];

describe.if(here)("the caller's standard streams", () => {
  test("are the same before and after every command, also with a log", async () => {
    using dir = new TempDir();
    await using _holder = await hold(dir, "held");
    const commands = JSON.stringify(COMMANDS.map((args) => [binary, ...args]));
    const env = { EXCLUSIVE_LOG: "info" };
    const observed = await command(["python3", "-ISc", OBSERVER, commands], { dir, cwd: dir.path, env });
    expect(observed.stderr).toBe("");
    expect(JSON.parse(observed.stdout)).toEqual([]);
  });

  const numbers = "seq 1 100000";
  const slowly = "(sleep 1; wc -l)";
  test("no line of a command that writes faster than its reader reads is lost", async () => {
    using dir = new TempDir();
    const shell = (script: string, env = {}) =>
      command(["bash", "-c", script], { dir, env: { X: binary, ...env } });
    expect(
      (await shell(`$X run x -- sleep 0.4 & sleep 0.1; $X run -q --wait x -- ${numbers} 2>&1 | ${slowly}`))
        .stdout,
    ).toBe("100000\n");
    expect((await shell(`($X list; ${numbers}) | ${slowly}`)).stdout).toBe("100000\n");
    const logged = await shell(`$X run x -- ${numbers} 2>/dev/null | ${slowly}`, { EXCLUSIVE_LOG: "info" });
    expect(logged.stdout).toBe("100000\n");
  });

  test("a command that closes its stderr gives the reader its end, while it works on", async () => {
    using dir = new TempDir();
    const script = `{ ${binary} run x -- sh -c 'exec 2>&-; sleep 60' 2>&1 >/dev/null & } | cat; echo end; kill %1 2>/dev/null; true`;
    const begin = Bun.nanoseconds();
    const { stdout } = await command(["bash", "-c", script], { dir });
    expect(stdout).toBe("end\n");
    expect((Bun.nanoseconds() - begin) / 1e9).toBeLessThan(50);
    await exclusive(["stop", "x"], { dir });
  });
});

/** What touches a standard stream of the runtime, and makes it non-blocking for all that share it. */
const TOUCHES =
  /(?<!#)\bprocess\s*\.\s*(stdin|stdout|stderr)\b|\.isTTY\b|\bBun\s*\.\s*(stdin|stdout|stderr)\b|\bnode:process\b/g;

describe("nothing touches the runtime's standard streams", () => {
  /** The guardian's stdin is a pipe of its own, from its wrapper. */
  /** Processes of our own that read orders from their parent: their stdin is nobody else's. */
  const OWN = ["src/command/run/guardian.ts", "src/command/run/store-keeper.ts"];

  test("in src/, comments aside", async () => {
    const { withoutComments } = await import("../support/modules.ts");
    const found: string[] = [];
    for (const file of new Bun.Glob("src/**/*.ts").scanSync(root)) {
      const text = withoutComments(file, readFileSync(`${root}/${file}`, "utf8"));
      for (const [touch] of text.matchAll(TOUCHES)) found.push(`${file}: ${touch}`);
    }
    expect(found.filter((line) => !OWN.some((file) => line === `${file}: Bun.stdin`))).toEqual([]);
  });

  test("in what the binary is built from, dependencies included", async () => {
    const { outputs } = await Bun.build({
      entrypoints: [`${root}/src/command/main.ts`],
      target: "bun",
      minify: { whitespace: true, syntax: true },
      format: "esm",
      splitting: true,
    });
    expect(outputs.length).toBeGreaterThan(5);
    const found: string[] = [];
    for (const output of outputs)
      for (const [touch] of (await output.text()).matchAll(TOUCHES)) found.push(touch);
    expect(found.filter((touch) => touch !== "Bun.stdin")).toEqual([]);
    expect(found.length).toBeLessThanOrEqual(OWN.length);
  });
});
