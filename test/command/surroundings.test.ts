/**
 * Where the engine, or what it needs of the system, fails: the answer is right, or it is status 71 with a sentence. Never is a
 * held lock called free, or a free one held.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, copyFileSync } from "node:fs";
import { canUnshare } from "../support/namespaces.ts";
import { binary } from "../support/paths.ts";
import { command, hold, Process, type Result } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

const CANNOT_RUN = 71;
const MINIFIED = /\bimport\.meta|=>|\.exports\b|\bat .*\$bunfs/;

/** PR_SET_MDWE(2const), as systemd's MemoryDenyWriteExecute=yes sets it. */
const NO_JIT = `#include <sys/prctl.h>
#include <unistd.h>
int main(int argc, char **argv) {
  if (prctl(65, 1, 0, 0, 0) != 0) return 99;
  execvp(argv[1], argv + 1);
  return 98;
}`;

interface Where {
  /** What starts the program in these surroundings. */
  prefix?: string[];
  env?: Record<string, string>;
  /** Another copy of the program. */
  program?: string;
  /** Every answer must be the right one: flock(1) and we both work there. Else 71 is right too. */
  works?: boolean;
  /** No answer is right: the engine cannot start. */
  fails?: boolean;
}

/** Runs a shell's command, and then what follows in its place. */
const after = (script: string): string[] => ["sh", "-c", `${script}; exec "$@"`, "sh"];

const isRoot = process.getuid?.() === 0;
const here = process.platform === "linux" && required("gcc", "gcc") && required("strace", "strace");

describe.if(here)("in these surroundings", () => {
  const tools = new TempDir();
  afterAll(() => tools[Symbol.dispose]());
  const nowx = tools.file("nowx");
  const stripped = tools.file("exclusive");
  /** The directory of the tests may be closed to other users. */
  const reachable = tools.file("reachable");

  beforeAll(async () => {
    chmodSync(tools.path, 0o755);
    await Bun.write(tools.file("nowx.c"), NO_JIT);
    expect(await command(["gcc", "-o", nowx, tools.file("nowx.c")])).toMatchObject({ status: 0 });
    copyFileSync(binary, reachable);
    copyFileSync(binary, stripped);
    expect(await command(["strip", stripped])).toMatchObject({ status: 0 });
  });

  const withoutProc = ["unshare", "-m", ...after("mount -t tmpfs none /proc")];
  const refuse = (calls: string, error: string) => [
    ...["strace", "-f", "-o", "/dev/null", "-e", `trace=${calls}`],
    ...["-e", `inject=${calls}:error=${error}`],
  ];
  /** dash knows no `ulimit -u`, and root has no such limit. */
  const asUser = (most: number) => [
    ...["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"],
    ...["prlimit", `--nproc=${most}`],
  ];

  const SURROUNDINGS: Record<string, Where> = {
    "nothing special": { works: true },
    "a current directory that was deleted": {
      prefix: after('mkdir "$EXCLUSIVE_DIR/gone.$$"; cd "$EXCLUSIVE_DIR/gone.$$"; rmdir "$PWD"'),
      works: true,
    },
    "a stripped binary": { program: stripped, works: true },
    BUN_OPTIONS: { env: { BUN_OPTIONS: "--cwd /nowhere --preload /nowhere.ts" }, works: true },
    BUN_BE_BUN: { env: { BUN_BE_BUN: "1" }, works: true },
    "stdin closed": { prefix: after("exec <&-"), works: true },
    "statx refused with ENOSYS": { prefix: refuse("statx", "ENOSYS"), works: true },
    "statx refused with EPERM": { prefix: refuse("statx", "EPERM"), works: true },
    "no file may grow": { prefix: after("ulimit -f 0"), works: true },
    "clone3 refused with EPERM": { prefix: refuse("clone3", "EPERM") },
    "fork refused with EAGAIN": { prefix: refuse("clone,clone3,vfork,fork", "EAGAIN") },
    "no memory that is writable and executable": { prefix: [nowx], fails: true },
    "an engine that aborts": { env: { BUN_JSC_structureHeapSizeInKB: "1" }, fails: true },
    "the JIT switched off": { env: { BUN_JSC_useJIT: "0" }, fails: true },
    ...Object.fromEntries(
      [400_000, 1_000_000, 2_000_000].map((size) => [
        `${size / 1000} MB of address space`,
        { prefix: after(`ulimit -v ${size}`), fails: true },
      ]),
    ),
    "2.5 GB of address space": { prefix: after("ulimit -v 2500000") },
    ...(canUnshare() && { "no /proc": { prefix: withoutProc, fails: true } }),
    ...Object.fromEntries(
      [5, 6, 7, 8, 9, 12].map((most) => [`${most} open files`, { prefix: after(`ulimit -n ${most}`) }]),
    ),
    ...(isRoot &&
      Object.fromEntries(
        [1, 2, 3, 4, 6].map((most) => [`${most} threads`, { prefix: asUser(most), program: reachable }]),
      )),
  };

  interface Question {
    args: (name: string, path: string) => string[];
    /** Is this the answer for a lock that is free, or held? */
    right: (result: Result, held: boolean) => boolean;
  }

  const QUESTIONS: Record<string, Question> = {
    run: {
      args: (name) => ["run", name, "--", "echo", "ran"],
      right: ({ status, stdout }, held) =>
        held ? status === 75 && stdout === "" : status === 0 && stdout === "ran\n",
    },
    "run with a wait": {
      args: (name) => ["run", "--timeout", "300ms", name, "--", "echo", "ran"],
      right: ({ status, stdout }, held) =>
        held ? status === 75 && stdout === "" : status === 0 && stdout === "ran\n",
    },
    status: {
      args: (name) => ["status", name],
      right: ({ status }, held) => status === (held ? 0 : 3),
    },
    wait: {
      args: (name) => ["wait", "--timeout", "300ms", name],
      right: ({ status }, held) => status === (held ? 75 : 0),
    },
    list: {
      args: () => ["list"],
      right: ({ status, stdout }, held) => status === 0 && stdout.includes("held") === held,
    },
    held: {
      args: (name) => ["held", name],
      right: ({ status }) => status === 3,
    },
    doctor: {
      args: () => ["doctor"],
      right: ({ status, stdout }) => status === 0 && !stdout.includes("NO "),
    },
    "flock -n": {
      args: (_, path) => ["flock", "-n", path, "true"],
      right: ({ status }, held) => status === (held ? 1 : 0),
    },
  };

  for (const [where, { prefix = [], env = {}, program = binary, works, fails }] of Object.entries(
    SURROUNDINGS,
  )) {
    const what = works ? "every answer is right" : fails ? "every answer is 71" : "an answer is right, or 71";
    test(`${where}: ${what}`, async () => {
      using dir = new TempDir();
      chmodSync(dir.path, 0o777);
      const name = "seen";
      const ask = async (held: boolean) => {
        for (const [question, { args, right }] of Object.entries(QUESTIONS)) {
          const argv = [...prefix, program, ...args(name, dir.lockfile(name))];
          const result = await new Process(argv, { dir, env }).result;
          const { status, signal, stderr } = result;
          const unable = status === CANNOT_RUN && /^exclusive( flock)?: .{10,}\n$/.test(stderr);
          const ok = fails ? unable : right(result, held) || (!works && unable);
          const wrong = { question, held, status, signal, stdout: result.stdout, stderr };
          expect(ok ? "right" : wrong).toEqual("right");
          expect(stderr).not.toMatch(MINIFIED);
        }
      };
      await ask(false);
      await using _holder = await hold(dir, name);
      await ask(true);
    }, 60_000);
  }

  test("each of stdin, stdout and stderr may be closed: the status is right", async () => {
    using dir = new TempDir();
    const statusOf = async (closed: string, ...args: string[]) =>
      (await new Process([...after(`exec ${closed}`), binary, ...args], { dir }).result).status;
    for (const closed of ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]) {
      expect([closed, await statusOf(closed, "status", "x")]).toEqual([closed, 3]);
      expect([closed, await statusOf(closed, "run", "x", "--", "sh", "-c", "exit 7")]).toEqual([closed, 7]);
      await using _holder = await hold(dir, "x");
      expect([closed, await statusOf(closed, "status", "x")]).toEqual([closed, 0]);
      expect([closed, await statusOf(closed, "run", "x", "--", "true")]).toEqual([closed, 75]);
    }
  }, 60_000);

  test("the command gets BUN_OPTIONS and BUN_BE_BUN as they were", async () => {
    using dir = new TempDir();
    const env = { BUN_OPTIONS: "--smol", BUN_BE_BUN: "1" };
    const { stdout } = await command(
      [binary, "run", "x", "--", "sh", "-c", 'echo "$BUN_OPTIONS $BUN_BE_BUN"'],
      {
        dir,
        env,
      },
    );
    expect(stdout).toBe("--smol 1\n");
  });

  test("in a deleted directory a relative path is refused, and the command stays there", async () => {
    using dir = new TempDir();
    using work = new TempDir();
    const gone = after(`mkdir ${work.path}/gone; cd ${work.path}/gone; rmdir ${work.path}/gone`);
    const within = (...args: string[]) => command([...gone, binary, ...args], { dir });
    for (const option of ["--dir", "--file", "--store-file"]) {
      const refused = await within("run", option, "relative", "x", "--", "true");
      expect(refused).toMatchObject({ status: 73, stdout: "" });
      expect(refused.stderr).toContain("the current directory was deleted");
    }
    const elsewhere = await command([...gone, binary, "status", "x"], { env: { EXCLUSIVE_DIR: "relative" } });
    expect(elsewhere).toMatchObject({ status: 73 });
    const moved = await within("run", "x", "--", "readlink", "/proc/self/cwd");
    expect(moved).toMatchObject({ status: 0, stdout: `${work.path}/gone (deleted)\n` });
  });

  test("the sentence names the cause: no JIT, few descriptors", async () => {
    using dir = new TempDir();
    const jit = await command([nowx, binary, "run", "x", "--", "true"], { dir });
    expect(jit.stderr).toMatch(/MemoryDenyWriteExecute=.*ulimit -v/);
    const files = await command([...after("ulimit -n 5"), binary, "run", "x", "--", "true"], { dir });
    expect(files.stderr).toContain("Too many open files");
  });
});
