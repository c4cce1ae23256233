/** One clock: no duration follows the wall clock, which can be set. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { FAKE_TIME, hasFakeTime } from "./support/faketime.ts";
import { withoutComments } from "./support/modules.ts";
import { binary, root } from "./support/paths.ts";
import { waiters } from "./support/proc.ts";
import { hold, Process, start } from "./support/process.ts";
import { hasRedis, startRedis } from "./support/servers.ts";
import { TempDir } from "./support/temp-dir.ts";
import { until } from "./support/until.ts";

/** What reads the wall clock, and why it may. */
const ALLOWED: Record<string, string> = {
  "src/holder.ts":
    "the times in a record; `heldFor`, for people, where the record is of another boot or host",
  "src/command/list.ts": "the heading of each list that --watch prints",
  "src/command/history/table.ts": "the date that stands in a table, and how long ago a run was",
  "src/events.ts": "the time of an event",
  "src/os/files.ts": "the times that a lock file is given, which cleaners compare with the wall clock",
  "src/store/postgres/facts.ts": "the difference between the two clocks, which `doctor` reports",
  "src/store/redis/facts.ts": "the same",
};
const WALL_CLOCK = /\bDate\.now\b|\bnew Date\(\)|\bDate\(\)|\bperformance\.timeOrigin\b/;

test("only times for people come from Date", () => {
  const found = Array.from(new Bun.Glob("src/**/*.ts").scanSync(root)).filter((file) =>
    WALL_CLOCK.test(withoutComments(file, readFileSync(`${root}/${file}`, "utf8"))),
  );
  expect(found.sort()).toEqual(Object.keys(ALLOWED).sort());
});

/** A wall clock that a test sets, for the processes that are started with `env`. */
class WallClock implements Disposable {
  readonly #dir = new TempDir();
  readonly #file = this.#dir.file("offset");
  readonly env = {
    ...FAKE_TIME,
    FAKETIME_TIMESTAMP_FILE: this.#file,
    FAKETIME_NO_CACHE: "1",
  };

  async set(offset: string): Promise<void> {
    await Bun.write(this.#file, `${offset}\n`);
  }
  static async atZero(): Promise<WallClock> {
    const clock = new WallClock();
    await clock.set("+0");
    return clock;
  }
  [Symbol.dispose](): void {
    this.#dir[Symbol.dispose]();
  }
}

/** A command that notes SIGTERM, and ends only by SIGKILL. */
const DEAF = ["sh", "-c", 'trap "echo asked" TERM; echo begun; while :; do sleep 0.05; done'];

/** Milliseconds that an operation takes. */
async function took(operation: Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await operation;
  return performance.now() - begun;
}

const HOUR = 3600;
/** More than the operation needs, and less than anything that followed the clock would take. */
const SLACK_MS = 15_000;

describe.if(hasFakeTime).each([
  ["forward", `+${HOUR}`],
  ["back", `-${HOUR}`],
])("a clock that is set one hour %s in the midst changes nothing", (_, step) => {
  test("in run --timeout and wait --timeout: they give up after their time", async () => {
    using dir = new TempDir();
    await using _holder = await hold(dir, "t");
    for (const args of [
      ["run", "-v", "--timeout", "3s", "t", "--", "true"],
      ["wait", "--timeout", "3s", "t"],
    ]) {
      using clock = await WallClock.atZero();
      await using waiter = start(args, { dir, env: clock.env });
      const waited = took(waiter.result);
      await until(
        () => waiters(dir.lockfile("t")) === 1,
        "the wait",
        () => waiter.stderr,
      );
      await clock.set(step);
      expect(await waiter.result).toMatchObject({ status: 75 });
      const time = await waited;
      expect(time).toBeGreaterThan(2900);
      expect(time).toBeLessThan(3000 + SLACK_MS);
    }
  });

  test("in what a wait says of itself and of the holder", async () => {
    using dir = new TempDir();
    using clock = await WallClock.atZero();
    await using _holder = await hold({ dir, env: clock.env }, "t");
    await clock.set(step);
    const { stdout } = await start(["status", "t"], { dir, env: clock.env }).result;
    expect(stdout).toMatch(/ for \d{1,2}s/);
    const { stdout: table } = await start(["list"], { dir, env: clock.env }).result;
    expect(table).toMatch(/ \d{1,2}s/);
  });

  test("in stop's grace: SIGKILL comes after it, neither at once nor never", async () => {
    using dir = new TempDir();
    using clock = await WallClock.atZero();
    await using holder = start(["run", "t", "--", ...DEAF], { dir });
    await holder.says("begun");
    await using stopper = start(["stop", "--grace", "3s", "t"], { dir, env: clock.env });
    const stopped = took(stopper.result);
    await holder.says("asked");
    await Bun.sleep(300); // by then the end of the grace is set
    await clock.set(step);
    expect(await stopper.result).toMatchObject({ status: 0 });
    const time = await stopped;
    expect(time).toBeGreaterThan(2900);
    expect(time).toBeLessThan(3000 + SLACK_MS);
  });

  test("in run --if-held replace: the holder gets its grace, and no more", async () => {
    using dir = new TempDir();
    using clock = await WallClock.atZero();
    await using holder = start(["run", "t", "--", ...DEAF], { dir });
    await holder.says("begun");
    const args = ["run", "--if-held", "replace", "--timeout", "3s", "t", "--", "true"];
    await using replacer = start(args, { dir, env: clock.env });
    const replaced = took(replacer.result);
    await holder.says("asked");
    await Bun.sleep(300); // by then the end of the grace is set
    await clock.set(step);
    await replacer.result;
    const time = await replaced;
    expect(time).toBeGreaterThan(2900);
    expect(time).toBeLessThan(3000 + SLACK_MS);
  });

  test("in a flock with a time limit", async () => {
    using dir = new TempDir();
    using clock = await WallClock.atZero();
    await using _holder = await hold(dir, "t");
    await using waiter = new Process([binary, "flock", "-w", "3", dir.lockfile("t"), "true"], {
      dir,
      env: clock.env,
    });
    const waited = took(waiter.result);
    await Bun.sleep(1000); // a wait that says nothing: no condition to see
    await clock.set(step);
    expect(await waiter.result).toMatchObject({ status: 1 });
    expect(await waited).toBeGreaterThan(2900);
  });

  test.if(hasRedis())("in a lease: it is renewed in time, and lost in time", async () => {
    using clock = await WallClock.atZero();
    await using server = await startRedis();
    const env = { EXCLUSIVE_STORE: server.url };
    const holder = await hold({ env: { ...env, ...clock.env } }, "t", "--ttl", "2s");
    await using _ends = holder;
    await clock.set(step);
    for (const end = performance.now() + 5000; performance.now() < end; ) {
      expect(await start(["run", "--ttl", "2s", "t", "--", "true"], { env }).result).toMatchObject({
        status: 75,
      });
    }
    expect(holder.running).toBe(true);
    await server.kill();
    const lost = took(holder.result);
    expect(await holder.result).toMatchObject({ status: 70 });
    expect(await lost).toBeLessThan(2000 + SLACK_MS);
  });
});
