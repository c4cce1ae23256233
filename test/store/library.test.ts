/** `Lock` with a remote store: where it differs from a lock file. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  CannotAcquireLock,
  exclusive,
  Lock,
  LockLost,
  LockTimeout,
  openStore,
  StoreError,
} from "../../src/index.ts";
import { startScript } from "../support/process.ts";
import { hasRedis, type RedisServer, startRedis } from "../support/servers.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(60_000);

describe.if(hasRedis())("Lock with a store", () => {
  let server: RedisServer;
  const ttl = "2s";
  const lockOf = (name: string) => new Lock({ name, store: server.url as string, ttl });
  beforeAll(async () => {
    server = await startRedis();
    await (await lockOf("first").acquire()).release();
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  test("acquire, refuse, time out, release", async () => {
    const [mine, other] = [lockOf("x"), lockOf("x")];
    await mine.acquire();
    expect(mine.held).toBe(true);
    expect(mine.lockfile).toBe(server.url);
    expect(await other.holder()).toMatchObject({ pid: process.pid, alive: true });
    expect(await other.acquire().catch((error) => error)).toBeInstanceOf(CannotAcquireLock);
    expect(await other.acquire({ timeout: 100 }).catch((error) => error)).toBeInstanceOf(LockTimeout);
    expect(await other.acquire({ timeout: 0 }).catch((error) => error)).toBeInstanceOf(CannotAcquireLock);
    const waiting = other.acquire({ wait: true });
    const { token } = mine;
    await mine.release();
    await waiting;
    expect(other.token!).toBeGreaterThan(token!);
    await other.release();
    expect(await mine.holder()).toBeNull();
  });

  test("what has no answer at once is a TypeError", async () => {
    const lock = lockOf("sync");
    expect(() => lock.acquireSync()).toThrow(TypeError);
    expect(() => lock.forever()).toThrow(TypeError);
    expect(() => exclusive({ name: "sync", store: server.url }, () => 1)).toThrow(TypeError);
    await lock.acquire();
    expect(() => lock.releaseSync()).toThrow(TypeError);
    expect(() => lock[Symbol.dispose]()).toThrow("await using");
    await until(async () => (await lockOf("sync").holder()) === null, "the lock to be free all the same");
    for (const options of [{ dir: "/tmp" }, { file: "/tmp" }, { keep: true }])
      expect(() => new Lock({ name: "x", store: server.url, ...options })).toThrow(TypeError);
    expect(() => new Lock({ name: "x", store: "mongodb://x" })).toThrow(TypeError);
    expect(() => new Lock({ name: "x", store: "not a url" })).toThrow(TypeError);
    expect(
      await new Lock({ store: server.url, ttl: "1ms" }).acquire().catch((error) => error),
    ).toBeInstanceOf(RangeError);
  });

  test("an async function under a lock of a store", async () => {
    let inside = 0;
    const job = exclusive({ name: "job", store: server.url, ttl, wait: true }, async (n: number) => {
      expect(++inside).toBe(1);
      await Bun.sleep(10);
      inside--;
      return n * 2;
    });
    expect(await Promise.all([job(1), job(2), job(3)])).toEqual([2, 4, 6]);
  });

  test("lost fires when the key is taken away, and no other holder begins while the second hold is held", async () => {
    const lock = await lockOf("stolen").acquire();
    await server.cli("DEL", "exclusive:lock:stolen");
    const next = lockOf("stolen").acquire({ wait: true });
    await new Promise((resolve) => lock.lost!.addEventListener("abort", resolve));
    expect(lock.lost!.reason).toBeInstanceOf(LockLost);
    expect(await Promise.race([next, Bun.sleep(300)])).toBeUndefined();
    await lock.release(); // the work has stopped
    await (await next).release();
  });

  test("one open store serves many locks, and closing it releases them", async () => {
    const store = await openStore(server.url, { ttl });
    const locks = ["a", "b"].map((name) => new Lock({ name, store }));
    for (const lock of locks) await lock.acquire();
    await store.close();
    await (await lockOf("a").acquire()).release();
    expect(await new Lock({ name: "a", store }).acquire().catch((error) => error)).toBeInstanceOf(StoreError);
  });

  test("a lock is not held after its lease, also while the event loop is blocked", async () => {
    const lock = await lockOf("blocked").acquire();
    Bun.sleepSync(2100);
    expect(lock.held).toBe(false);
    expect(lock.lost!.aborted).toBe(true);
    await lock.release();
  });

  test("a program that has released its lock ends by itself", async () => {
    using dir = new TempDir();
    const script = `{ await using lock = await new Lock({ name: "end", store: ${JSON.stringify(server.url)}, ttl: "2s" }).acquire();
      console.log(typeof lock.token); }`;
    await using program = startScript(script, dir);
    expect(await program.result).toMatchObject({ status: 0, stdout: "bigint\n", stderr: "" });
  });

  test("a time limit counts while the store's memory is too short: then the store is not ready, and nothing is held", async () => {
    await using fresh = await startRedis();
    const lock = new Lock({ name: "x", store: fresh.url, ttl: "1h" });
    for (const timeout of [200, 0]) {
      const error = await lock.acquire({ timeout }).catch((error) => error);
      expect(error).toBeInstanceOf(StoreError);
      expect(error.message).toContain("looks new or restarted");
    }
    const signal = AbortSignal.timeout(100);
    expect(await lock.acquire({ signal }).catch((error) => error)).toBe(signal.reason);
  });
});
