/** The faults of every store, with Redis, and faults that only Redis has. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { alive } from "../../support/proc.ts";
import { exclusive } from "../../support/process.ts";
import { hasRedis, type RedisServer, startRedis } from "../../support/servers.ts";
import { faultSuite, scene, waits } from "../faults.ts";

setDefaultTimeout(90_000);

if (hasRedis()) {
  faultSuite("redis", {
    start: () => startRedis(),
    takeAway: async (server) => {
      await (server as RedisServer).cli("DEL", "exclusive:lock:work");
    },
  });

  test("a key without a time to live: a waiter does not poll", async () => {
    await using server = await startRedis();
    await server.cli("SET", "exclusive:lock:work", "somebody");
    const late = await exclusive(["run", "--store", server.url, "-t", "1", "work", "true"]);
    expect(late.status).toBe(75);
    const calls = /cmdstat_eval:calls=(\d+)/.exec(await server.cli("INFO", "commandstats"))?.[1];
    expect(Number(calls)).toBeGreaterThan(0);
    expect(Number(calls)).toBeLessThan(20);
  });

  test("FLUSHALL: the next run waits for a lease, and the old command is gone by then", async () => {
    await using server = await startRedis();
    await using at = scene(server);
    const holder = at.run(at.far, 600);
    const first = await at.log.begun(1, () => holder.stderr);
    await server.cli("FLUSHALL");
    const next = at.run(at.near, 0, "--wait");
    const second = await at.log.begun(2, () => next.stderr);
    expect(alive(first.pid)).toBe(false);
    expect(second.token).toBeGreaterThan(first.token); // a counter would have been deleted too, and start at 1
    expect(next.stderr).toContain("looks new or restarted");
    at.log.check();
    const { status, stderr } = await holder.result;
    expect({ status, lost: stderr.includes("the store does not have it any more") }).toEqual({
      status: 70,
      lost: true,
    });
  });

  test("FLUSHALL while the holder is cut off: it stops by its own clock before the next command begins", async () => {
    await using server = await startRedis();
    await using at = scene(server);
    const holder = at.run(at.far, 600);
    const first = await at.log.begun(1, () => holder.stderr);
    at.proxy.hold("both");
    await server.cli("FLUSHALL");
    const next = at.run(at.near, 0, "--wait");
    await at.log.begun(2, () => next.stderr);
    expect(alive(first.pid)).toBe(false);
    at.log.check();
    expect((await holder.result).status).toBe(70);
  });

  test("a server with persistence, killed and restarted, still has the holder, which continues", async () => {
    await using server = await startRedis({ persistent: true });
    await using at = scene(server);
    const holder = at.run(at.far, 4);
    const first = await at.log.begun(1, () => holder.stderr);
    await server.kill();
    await server.start();
    const next = at.run(at.near, 0, "--wait");
    const second = await at.log.begun(2, () => next.stderr);
    expect((await holder.result).status).toBe(0);
    expect(second.token).toBeGreaterThan(first.token);
    at.log.check();
  });

  test("CLIENT KILL: holder and waiter reconnect", async () => {
    await using server = await startRedis();
    await using at = scene(server);
    const holder = at.run(at.far, 4);
    await at.log.begun(1, () => holder.stderr);
    const next = at.run(at.near, 0, "--wait");
    await waits(next);
    for (let i = 0; i < 5; i++) {
      await Bun.sleep(200);
      await server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
      await server.cli("CLIENT", "KILL", "TYPE", "pubsub");
    }
    expect((await holder.result).status).toBe(0);
    expect((await next.result).status).toBe(0);
    at.log.check();
  });

  test("a waiter makes a handful of requests, and does not poll", async () => {
    await using server = await startRedis();
    await using at = scene(server);
    const holder = at.run(at.near, 600);
    const first = await at.log.begun(1, () => holder.stderr);
    const next = at.run(at.near, 0, "--wait", "--quiet");
    const acquires = async () => (await server.cli("CLIENT", "LIST", "TYPE", "pubsub")).includes("sub=");
    while (!(await acquires())) await Bun.sleep(20);
    await server.cli("CONFIG", "RESETSTAT");
    const seconds = Number(process.env.STORE_WAITING_SECONDS ?? 5);
    await Bun.sleep(seconds * 1000);
    const stats = await server.cli("INFO", "commandstats");
    const calls = (command: string) =>
      Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
    // For each of the holder's two holds a little over two renewals a lease, and one request of the waiter a lease.
    const leases = (seconds * 1000) / at.ttl;
    expect(calls("eval")).toBeLessThanOrEqual(Math.ceil(leases * 3 * 2 + leases + 4));
    at.log.finish(first);
    expect((await next.result).status).toBe(0);
  });
}
