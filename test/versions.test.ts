/** Two versions on one machine: side by side on one lock, and one that replaces the other's binary while it runs. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { binary, root } from "./support/paths.ts";
import { command, Process, type StartOptions } from "./support/process.ts";
import { TempDir } from "./support/temp-dir.ts";
import { until } from "./support/until.ts";

/** The first version whose locks this one promises to keep. */
const BEFORE = "b374d92194d9fc5d2c9b6d2136b0cb5b57bad9ed";

const home = new TempDir();
const older = home.file("before/dist/exclusive");
afterAll(() => home[Symbol.dispose]());

function isThere(commit: string): boolean {
  if (Bun.spawnSync(["git", "cat-file", "-e", `${commit}^{commit}`], { cwd: root }).success) return true;
  console.warn(`skipped: commit ${commit.slice(0, 7)} is not in this clone (git fetch --unshallow)`);
  return false;
}
const hasBefore = Bun.which("git") !== null && isThere(BEFORE);

/** Builds the version of before as its own build does. */
beforeAll(async () => {
  if (!hasBefore) return;
  mkdirSync(home.file("before"));
  const unpack = 'git archive "$1" | tar -x -C "$2"';
  const unpacked = await command(["sh", "-c", unpack, "sh", BEFORE, home.file("before")]);
  expect(unpacked).toMatchObject({ status: 0, stderr: "" });
  symlinkSync(`${root}/node_modules`, home.file("before/node_modules"));
  const built = await command([process.execPath, "build.ts"], { cwd: home.file("before") });
  expect({ status: built.status, stderr: built.status === 0 ? "" : built.stderr }).toEqual({
    status: 0,
    stderr: "",
  });
}, 120_000);

const run = (argv: string[], options: StartOptions) => command(argv, options);

async function holding(program: string, dir: TempDir, ...options: string[]): Promise<Process> {
  const holder = new Process(
    [program, "run", ...options, "t", "--", "sh", "-c", "echo begun; exec sleep 60"],
    { dir },
  );
  await holder.says("begun");
  return holder;
}

describe.if(hasBefore)("side by side on one lock:", () => {
  const pairs = [
    ["the older holds, the newer asks", () => [older, binary]],
    ["the newer holds, the older asks", () => [binary, older]],
  ] as const;

  test.each(pairs)(
    "%s: it is refused with the holder's pid, sees it, waits, and gets its turn",
    async (_, programs) => {
      using dir = new TempDir();
      const [first, second] = programs() as [string, string];
      await using holder = await holding(first, dir, "--label", "a note");
      const refused = await run([second, "run", "t", "--", "echo", "no"], { dir });
      expect(refused).toMatchObject({ status: 75, stdout: "" });
      expect(refused.stderr).toContain(`pid ${holder.pid}`);
      const status = await run([second, "status", "t", "--json"], { dir });
      expect(status.status).toBe(0);
      expect(JSON.parse(status.stdout)).toMatchObject({
        state: "held",
        holder: { pid: holder.pid, alive: true, mode: "exclusive", label: "a note" },
      });
      const list = JSON.parse((await run([second, "list", "--json"], { dir })).stdout);
      expect(list).toMatchObject([{ name: "t", state: "held", holder: { pid: holder.pid } }]);
      await using waiter = new Process([second, "run", "--wait", "t", "--", "echo", "my turn"], { dir });
      await until(
        async () => JSON.parse((await run([first, "status", "t", "--json"], { dir })).stdout).waiters === 1,
        "the waiter is in the queue",
      );
      holder.kill("SIGTERM");
      expect(await waiter.result).toMatchObject({ status: 0, stdout: "my turn\n" });
      expect(dir.list()).toEqual([]);
    },
    60_000,
  );

  test.each(pairs)("%s: it can stop the holder", async (_, programs) => {
    using dir = new TempDir();
    const [first, second] = programs() as [string, string];
    await using holder = await holding(first, dir);
    expect(await run([second, "stop", "t"], { dir })).toMatchObject({ status: 0 });
    expect((await holder.result).signal).toBe("SIGTERM");
    expect(dir.list()).toEqual([]);
  });

  test.each(pairs)("%s: shared locks are shared, and slots are counted together", async (_, programs) => {
    using dir = new TempDir();
    const [first, second] = programs() as [string, string];
    await using _reader = await holding(first, dir, "--shared");
    const shared = await run([second, "run", "--shared", "t", "--", "echo", "read"], { dir });
    expect(shared).toMatchObject({ status: 0, stdout: "read\n" });
    expect(await run([second, "run", "t", "--", "true"], { dir })).toMatchObject({ status: 75 });

    using slots = new TempDir();
    await using _one = await holding(first, slots, "--slots", "2");
    await using _two = await holding(second, slots, "--slots", "2");
    for (const program of [first, second]) {
      const third = await run([program, "run", "--slots", "2", "t", "--", "true"], { dir: slots });
      expect(third).toMatchObject({ status: 75 });
    }
  });
});

describe("a binary that is replaced while it runs:", () => {
  const changes: [string, (path: string) => void][] = [
    ["by another version", (path) => renameSync(home.file("next"), path)],
    ["by what is no program", (path) => renameSync(home.file("text"), path)],
    ["by nothing: it is deleted", (path) => rmSync(path)],
  ];
  test.each(changes)(
    "%s: the job ends as it would have, --hold-for is kept, and the waiter gets its turn",
    async (_, change) => {
      using dir = new TempDir();
      using place = new TempDir();
      const program = place.file("exclusive");
      copyFileSync(binary, program);
      copyFileSync(hasBefore ? older : binary, home.file("next"));
      writeFileSync(home.file("text"), "no program\n", { mode: 0o755 });
      const script = "echo begun; until [ -e go ]; do sleep 0.05; done; exit 7";
      await using holder = new Process([program, "run", "--hold-for", "3s", "t", "--", "sh", "-c", script], {
        dir,
        cwd: place.path,
      });
      await holder.says("begun");
      await using waiter = new Process([program, "run", "--wait", "t", "--", "echo", "my turn"], { dir });
      const waiters = async () =>
        JSON.parse((await run([binary, "status", "t", "--json"], { dir })).stdout).waiters;
      await until(async () => (await waiters()) === 1, "the waiter is in the queue");

      change(program);
      writeFileSync(place.file("go"), "");
      expect(await holder.result).toMatchObject({ status: 7, stderr: "" });
      expect(await waiter.result).toMatchObject({ status: 0, stdout: "my turn\n", stderr: "" });
      expect(existsSync(dir.lockfile("t"))).toBe(false);
    },
    60_000,
  );

  test("--max-runtime still stops a command with all that it started", async () => {
    using dir = new TempDir();
    using place = new TempDir();
    const program = place.file("exclusive");
    copyFileSync(binary, program);
    const script = "sleep 60 & echo begun; wait";
    await using holder = new Process([program, "run", "--max-runtime", "2s", "t", "--", "sh", "-c", script], {
      dir,
    });
    await holder.says("begun");
    rmSync(program);
    expect(await holder.result).toMatchObject({ status: 124 });
    expect(await run([binary, "status", "t"], { dir })).toMatchObject({ status: 3 });
  });
});
