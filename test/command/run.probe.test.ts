/**
 * The wrapper is transparent, as a probe in C sees it: all that a process can observe of itself, bare and wrapped, under many
 * start conditions. `test/fixtures/start-as.c` makes the conditions, `test/fixtures/probe.c` prints what it finds.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, readFileSync, rmSync } from "node:fs";
import { canUnshare } from "../support/namespaces.ts";
import { binary, root } from "../support/paths.ts";
import { waiters } from "../support/proc.ts";
import { command, hold, Process } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const here = process.platform === "linux" && required("gcc", "gcc libc6-dev");
const LANES = 4;

const SIGNALS = Array.from({ length: 64 }, (_, i) => i + 1).filter((n) => ![9, 19, 32, 33].includes(n));
/** Signals whose action or mask Bun changes, and a few that it leaves alone. */
const CHANGED = [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 15, 17, 25, 30, 31, 34, 64];

/** What `start-as` is told. */
const CONDITIONS: readonly string[] = [
  ...["fff", "ppp", "sss", "ttt", "---", "-ff", "f-f", "ff-", "--f", "f--", "-f-", "tff", "ftf", "fft"],
  ...["tpp", "ptp", "ppt", "pst"],
].map((kinds) => `std:${kinds}`);
const IGNORED = SIGNALS.map((number) => `ign:${number}`);
const ON_TERMINAL = CHANGED.map((number) => `std:ttt ign:${number}`);
const BLOCKED = CHANGED.map((number) => `blk:${number}`);
const OTHERS: readonly string[] = [
  "ign:all",
  "blk:all",
  "ign:all blk:all",
  ...[6, 8, 10, 20, 64, 1024, 4096].map((limit) => `nofile:${limit}`),
  ...[3, 4, 5, 10, 200, 1022, 1023, 1500].map((fd) => `fd:${fd}`),
  "fds:3:40",
  "fds:4:1023",
  "fds:3:1023",
  "epoll",
  "fd:200 nofile:64",
  "umask:777",
  "umask:0",
  "nice:5",
  "core:0",
  "cwd:/",
  "poslock",
  "nofile:5",
];
/** For the other ways to start: one of each kind. */
const SOME = [
  ...["std:ppp", "std:ttt", "std:---", "std:ttt ign:15", "ign:all", "blk:all", "nofile:20", "fd:1023"],
  ...["epoll", "fd:200 nofile:64", "fds:3:1023", "umask:777", "poslock"],
];

/**
 * What differs, and why: the manual has the same list, under NOTES. A key is a condition, the value what is found bare and not
 * wrapped. A child does not inherit its parent's POSIX locks, so `--exec` alone keeps them.
 */
const DIFFERENCES: Readonly<Record<string, RegExp>> = {
  poslock: /^lock\.posix 1$/,
  // Bun's event loop takes two of the five, so the lock's file cannot be opened.
  "nofile:5": /./,
};

/** Facts that differ between any two runs, or that are what a lock is: its descriptor and its variables. */
const LEFT_OUT = ["environ", "fd.next", "fd.count", "job.group", "job.session", "status.Name", "cgroup"];

let home: TempDir;
const tool = (name: string) => home.file(name);

beforeAll(async () => {
  if (!here) return;
  home = new TempDir();
  chmodSync(home.path, 0o777);
  for (const name of ["start-as", "probe"]) {
    const source = `${root}/test/fixtures/${name}.c`;
    const built = await command(["gcc", "-O1", "-Wall", "-Wextra", "-o", tool(name), source]);
    expect(built).toMatchObject({ status: 0, stderr: "" });
  }
});
afterAll(() => home?.[Symbol.dispose]());

let probes = 0;

/** A prefix of the probe, in this condition; and the file that it writes. */
function probing(
  condition: string,
  wrapper: readonly string[],
  where: TempDir,
  around: readonly string[] = [],
): [string[], string] {
  const file = where.file(`found${probes++}`);
  const leave = LEFT_OUT.flatMap((prefix) => ["-s", prefix]);
  const conditions = condition.split(" ");
  const probe = [...wrapper, tool("probe"), "-o", file, ...leave];
  return [[...around, tool("start-as"), ...conditions, "--", ...probe], file];
}

/** What was found, without what belongs to the lock and the probe's own arguments. */
function foundIn(file: string, lock: string): string[] {
  let text = "";
  try {
    text = readFileSync(file, "utf8");
    rmSync(file);
  } catch {}
  const lockFd = new RegExp(`^fd\\.(\\d+)\\.target .*${RegExp.escape(lock)}$`, "m").exec(text)?.[1];
  return text
    .split("\n")
    .filter((line) => lockFd === undefined || !line.startsWith(`fd.${lockFd}.`))
    .filter((line) => !/^argv\.0+2 /.test(line))
    .map((line) =>
      line
        .replace(/(pipe|socket):\[\d+\]/, "$1")
        .replace(/\/dev\/pts\/\d+/, "terminal")
        .replace(/^(fd\.\d+\.file) \w+:\d+/, "$1"),
    );
}

/** What is found bare and not wrapped, and the other way round. */
function difference(bare: string[], wrapped: string[]): { bare: string[]; wrapped: string[] } {
  return {
    bare: bare.filter((line) => !wrapped.includes(line)),
    wrapped: wrapped.filter((line) => !bare.includes(line)),
  };
}

/** Compares under each of these conditions, a few at a time. */
async function compare(
  conditions: readonly string[],
  wrapper: (dir: TempDir) => readonly string[],
  lock: string,
  same: readonly string[] = [],
  other: readonly string[] = [],
): Promise<void> {
  const left = conditions.slice();
  const wrong: Record<string, unknown> = {};
  const lane = async () => {
    using dir = new TempDir();
    chmodSync(dir.path, 0o777);
    const probe = async (condition: string, prefix: readonly string[]) => {
      const [argv, file] = probing(condition, prefix, dir);
      await command(argv, { dir, cwd: dir.path });
      return foundIn(file, lock);
    };
    for (let condition = left.pop(); condition !== undefined; condition = left.pop()) {
      const bare = await probe(condition, other);
      if (bare.length < 100) throw new Error(`no start in the condition ${condition}`);
      const found = difference(bare, await probe(condition, wrapper(dir)));
      const allowed = same.includes(condition) ? undefined : DIFFERENCES[condition];
      const known =
        allowed !== undefined && found.bare.length > 0 && found.bare.every((line) => allowed.test(line));
      if (!known && found.bare.length + found.wrapped.length > 0) wrong[condition] = found;
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  expect(wrong).toEqual({});
}

describe.if(here)("a probe finds the same, bare and wrapped", () => {
  const run = (...options: string[]) => [binary, "run", ...options, "t", "--"];
  const FILE = "exclusive_t.lock";

  for (const [what, conditions] of Object.entries({
    "each kind of standard stream": CONDITIONS,
    "each signal ignored": IGNORED,
    "signals ignored on a terminal": ON_TERMINAL,
    "signals blocked": BLOCKED,
    "limits, descriptors, and the rest": OTHERS,
  })) {
    test(`run: ${what}`, () => compare(conditions, () => run(), FILE));
  }

  /** Runs a shell's script, and then what follows in its place. */
  const after = (script: string, operands = "") => ["sh", "-c", `${script} exec "$@" ${operands}`, "sh"];
  const inOwnMounts = (script: string) => ["unshare", "--mount", ...after(script)];
  const AROUND: Record<string, (dir: TempDir) => string[]> = {
    "a huge environment": () => after('for i in $(seq 4000); do export "V$i=$i $i $i"; done;'),
    "odd arguments": () => after("", `'' "$(printf 'a\\377b')" 'a b' -n -- --help "$(printf '\\n')x"`),
    "another user": () => ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"],
    "no /dev": () => inOwnMounts("mount -t tmpfs none /dev || exit 99;"),
    "a read-only root": ({ path }) =>
      inOwnMounts(`mount --bind "${path}" "${path}" && mount -o remount,ro,bind / || exit 99;`),
  };
  for (const [what, around] of Object.entries(AROUND)) {
    const isPossible = process.getuid?.() === 0 && canUnshare();
    test.if(isPossible || /arguments|environment/.test(what))(`run: in ${what}`, async () => {
      // Bun puts /dev/null in the place of a closed stream at its start, and gives up without: 71, see docs/surroundings.md.
      const closed = what === "no /dev" ? [] : ["std:-f-"];
      for (const condition of ["std:ppp", "std:fff", "ign:15 blk:10", ...closed]) {
        using dir = new TempDir();
        chmodSync(dir.path, 0o777);
        const probe = async (prefix: readonly string[]) => {
          const [argv, file] = probing(condition, prefix, dir, around(dir));
          const { stderr } = await command(argv, { dir, cwd: dir.path });
          const found = foundIn(file, FILE);
          if (found.length < 100) throw new Error(`nothing found: ${condition}: ${stderr}`);
          return found;
        };
        const found = difference(await probe([]), await probe(run()));
        expect([condition, found]).toEqual([condition, { bare: [], wrapped: [] }]);
      }
    });
  }

  test("run --exec, which keeps POSIX locks too", () =>
    compare(SOME, () => run("--exec"), FILE, ["poslock"]));
  test("run --timeout", () => compare(SOME, () => run("--timeout", "1m"), FILE));
  test("run --slots", () => compare(SOME, () => run("--slots", "2"), "exclusive_t.1.lock"));
  test("run --shared", () => compare(SOME, () => run("--shared"), FILE));
  test("run --close: no descriptor of the lock", () => compare(SOME, () => run("--close"), "no lock"));

  test("run --wait that has waited", async () => {
    for (const condition of ["std:ttt", "std:ppp", "ign:all", "blk:all", "epoll", "fds:3:40", "nofile:20"]) {
      using dir = new TempDir();
      const [bare, bareFile] = probing(condition, [], dir);
      await command(bare, { cwd: dir.path });
      await using holder = await hold(dir, "t");
      const [argv, file] = probing(condition, run("--quiet", "--wait"), dir);
      await using waiter = new Process(argv, { dir, cwd: dir.path });
      await until(() => waiters(dir.lockfile("t")) === 1, "the waiter");
      holder.kill();
      await waiter.result;
      const found = difference(foundIn(bareFile, FILE), foundIn(file, FILE));
      expect([condition, found]).toEqual([condition, { bare: [], wrapped: [] }]);
    }
  });

  const real = required("flock", "util-linux") && Bun.which("flock");
  test.if(Boolean(real))("the flock front, beside flock(1)", async () => {
    const flock = (...prefix: string[]) => [...prefix, "job.lock"];
    const conditions = SOME.filter((condition) => condition !== "poslock" && condition !== "umask:777");
    await compare(conditions, () => flock(binary, "flock"), "no lock", [], flock(real as string));
    const exec = [...conditions, "poslock"];
    await compare(exec, () => flock(binary, "flock", "-F"), "no lock", exec, flock(real as string, "-F"));
  });
});
