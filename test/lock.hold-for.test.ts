/** `holdFor`: the lock is kept at least so long after it was acquired, however soon it is released. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { CannotAcquireLock, exclusive, Lock } from "../src/index.ts";
import { clock } from "../src/os/clock.ts";
import { describeEngines, TTL } from "./support/engines.ts";
import { childrenOf, command, exclusive as run, startScript } from "./support/process.ts";
import { TempDir } from "./support/temp-dir.ts";
import { until } from "./support/until.ts";

setDefaultTimeout(60_000);

const error = (call: () => unknown): unknown => {
  try {
    return call();
  } catch (thrown) {
    return thrown;
  }
};

test("a program that ends leaves the lock to a keeper: it is refused, shown with its end, and stopped by `stop`", async () => {
  using dir = new TempDir();
  for (const body of [
    "using lock = new Lock({ name: 't', holdFor: '600s' }).acquireSync();",
    "await (await new Lock({ name: 't', holdFor: '600s' }).acquire()).release();",
    "new Lock({ name: 't', holdFor: '600s' }).forever(); process.exit();",
    "exclusive({ name: 't', holdFor: '600s' }, () => {})();",
  ]) {
    await using script = startScript(body, dir);
    expect(await script.result).toMatchObject({ status: 0, stderr: "" });
    const { stdout } = await run(["status", "--json", "t"], { dir });
    expect(JSON.parse(stdout)).toMatchObject({
      state: "held",
      holder: { until: expect.stringMatching(/Z$/) },
    });
    expect(error(() => new Lock({ name: "t", dir: dir.path }).acquireSync())).toBeInstanceOf(
      CannotAcquireLock,
    );
    expect(await run(["stop", "-q", "t"], { dir })).toMatchObject({ status: 0 });
  }
});

test("a program that goes on is refused too, gets the lock when the time is over, and keeps no dead child", async () => {
  using dir = new TempDir();
  const from = clock();
  const lock = new Lock({ name: "t", dir: dir.path, holdFor: "1s" }).acquireSync();
  lock.releaseSync();
  expect(lock.held).toBe(false);
  const refused = error(() => lock.acquireSync()) as CannotAcquireLock;
  expect(refused).toBeInstanceOf(CannotAcquireLock);
  expect(refused.message).toBe(`Another 't' process is already running (pid ${process.pid}).`);
  expect(refused.holder!.until).toMatch(/Z$/);
  await using again = await new Lock({ name: "t", dir: dir.path }).acquire({ wait: true });
  expect(clock() - from).toBeGreaterThan(995);
  expect(again.held).toBe(true);
  const dead = async () => {
    const { stdout } = await command(["ps", "-o", "stat=", "-p", childrenOf(process.pid).join() || "1"]);
    return stdout.split("\n").filter((stat) => stat.startsWith("Z")).length;
  };
  await until(async () => (await dead()) === 0, "the keeper to be reaped");
});

test("a lock that is held for longer is released at once", async () => {
  using dir = new TempDir();
  const lock = new Lock({ name: "t", dir: dir.path, holdFor: 50 }).acquireSync();
  await Bun.sleep(100);
  lock.releaseSync();
  expect(dir.list()).toEqual([]);
  expect(() => new Lock({ name: "t", holdFor: "soon" })).toThrow(RangeError);
  expect(() => exclusive({ name: "t", holdFor: "5" }, () => {})()).toThrow(RangeError);
});

describeEngines("holdFor in a store", (_engine, env) => {
  test("the program runs on until the time is over, and every other is refused up to then", async () => {
    using dir = new TempDir();
    const options = { name: "t", store: env().EXCLUSIVE_STORE!, ttl: TTL };
    const job = `await using lock = await new Lock(${JSON.stringify({ ...options, holdFor: "5s" })}).acquire();
      console.log("acquired");`;
    await using script = startScript(job, dir);
    await script.says("acquired");
    const from = clock();
    await Bun.sleep(2500); // longer than a lease
    expect(await new Lock(options).acquire().catch((error) => error)).toBeInstanceOf(CannotAcquireLock);
    await using _mine = await new Lock(options).acquire({ wait: true });
    expect(clock() - from).toBeGreaterThan(4000);
    expect(await script.result).toMatchObject({ status: 0, stderr: "" });
  });
});
