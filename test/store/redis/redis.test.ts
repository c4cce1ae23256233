/** Behaviour that only Redis has: rights, memory, and its answers. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openEngine } from "../../../src/store/open-store.ts";
import { secondHoldOf } from "../../../src/store/second-hold.ts";
import { root } from "../../support/paths.ts";
import { exclusive, hold, Process, start, startScript } from "../../support/process.ts";
import { freePort, hasRedis, type RedisServer, startRedis } from "../../support/servers.ts";
import { TempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";
import { scene, waits } from "../faults.ts";

setDefaultTimeout(60_000);

/** The rights that docs/stores.md names. */
const documented = (): string[] =>
  /`(~exclusive:\*[^`]*)`/.exec(readFileSync(join(root, "docs/stores.md"), "utf8"))![1]!.split(" ");

/** A server with a user `app` that has these rights, and its URL for that user. */
async function restricted(rights: string[]): Promise<{ server: RedisServer; url: string }> {
  const server = await startRedis();
  await server.cli("ACL", "SETUSER", "app", "on", ">secret", ...rights);
  const url = server.url.replace("://", "://app:secret@");
  await exclusive(["run", "--store", url, "--ttl", "3s", "first", "true"]); // waits for a lease
  return { server, url };
}

describe.if(hasRedis())("redis", () => {
  test("with the rights that the manual names a waiter has the lock as soon as it is released", async () => {
    const { server, url } = await restricted(documented());
    await using _ = server;
    await using holder = await hold({ env: { EXCLUSIVE_STORE: url } }, "x", "--ttl", "3s");
    await using next = start(["run", "--store", url, "--ttl", "3s", "-v", "--wait", "x", "true"]);
    await waits(next);
    await until(
      async () => /=1|1$/.test(await server.cli("PUBSUB", "NUMSUB", "exclusive:free:0:x")),
      "a listener",
    );
    const began = performance.now();
    await using _stop = start(["stop", "--store", url, "x"]);
    expect((await next.result).status).toBe(0);
    expect(performance.now() - began).toBeLessThan(5000);
    expect(next.stderr).not.toContain("subscribe");
    await holder.result;
  });

  test("a user who may not subscribe waits too, says so once, and asks no more than some times a second", async () => {
    const { server, url } = await restricted(
      documented()
        .filter((right) => !/^&|pubsub/.test(right))
        .concat("resetchannels"),
    );
    await using _ = server;
    await using holder = await hold({ env: { EXCLUSIVE_STORE: url } }, "x", "--ttl", "3s");
    await using next = start(["run", "--store", url, "--ttl", "3s", "--wait", "x", "true"]);
    await until(
      () => next.stderr.includes("no permission to subscribe"),
      "a notice",
      () => next.stderr,
    );
    const quick = await exclusive(["run", "--store", url, "--ttl", "3s", "other", "true"]);
    expect(quick).toMatchObject({ status: 0, stderr: "" });
    await using _stop = start(["stop", "--store", url, "x"]);
    expect((await next.result).status).toBe(0);
    expect(next.stderr.split("no permission to subscribe").length).toBe(2);
    await holder.result;
  });

  test("doctor has a verdict with the rights that the manual names", async () => {
    const { server, url } = await restricted(documented());
    await using _ = server;
    const { status, stdout } = await exclusive(["doctor", "--store", url]);
    expect({ status, verdict: stdout.includes("locks work here") }).toEqual({ status: 0, verdict: true });
  });

  test("a script that awaits a lock of a server that never answers does not end with 0", async () => {
    using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    using dir = new TempDir();
    const code = `async function main() { await new Lock({ name: "x", store: "redis://127.0.0.1:${silent.port}", ttl: "2s" }).acquire(); console.log("in"); }
      main();`;
    const { status, stdout, stderr } = await startScript(code, dir).result;
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    expect(stderr).toContain("no answer");
  });

  test("the server says why it refuses a connection", async () => {
    await using server = await startRedis();
    await server.cli("ACL", "SETUSER", "app", "on", ">secret", ...documented());
    using other = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { data: (socket) => void socket.write("HTTP/1.1 400 Bad Request\r\n\r\n") },
    });
    const said = async (url: string) => (await exclusive(["run", "--store", url, "x", "true"])).stderr;
    const to = (user: string) => server.url.replace("://", `://${user}@`);
    expect(await said(to("app:wrong"))).toContain("WRONGPASS");
    expect(await said(to("app:wrong"))).not.toContain("wrong@");
    await server.cli("CONFIG", "SET", "requirepass", "needed");
    expect(await said(server.url)).toContain("NOAUTH");
    expect(await said(`redis://127.0.0.1:${freePort()}`)).toContain("connection refused");
    expect(await said("redis://no-such-host.invalid")).toContain("unknown host");
    expect(await said(`redis://127.0.0.1:${other.port}`)).toContain("does not speak the protocol of Redis");
    expect(await said(server.url.replace("redis:", "rediss:"))).toContain("TLS");
  });

  test("a server whose memory is full still renews the leases", async () => {
    await using server = await startRedis();
    const store = await openEngine(server.url, { ttl: "2s", notice: () => {} });
    const request = { name: "full", mode: "exclusive" as const };
    const leases = [(await store.tryAcquire(request))!, (await store.tryAcquire(secondHoldOf(request)))!];
    await server.cli("CONFIG", "SET", "maxmemory", "1");
    await server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction");
    expect(await server.cli("SET", "any", "thing")).toContain("OOM");
    await Bun.sleep(3000);
    expect(leases.map((lease) => lease.lost!.aborted)).toEqual([false, false]);
    await store.close();
  });

  test("neither volatile-* evictions nor a clock that steps take the second hold away", async () => {
    await using server = await startRedis();
    await using at = scene(server);
    const holder = at.run(at.near, 600);
    const first = await at.log.begun(1, () => holder.stderr);
    // A clock that steps, and an eviction, end every key that has a time to live.
    const next = at.run(at.near, 0, "--wait");
    await waits(next);
    const end = `local stays = 0 for _, key in ipairs(redis.call('KEYS', 'exclusive:lock:*')) do
      if redis.call('PTTL', key) == -1 then stays = stays + 1 else redis.call('DEL', key) end end return stays`;
    expect(await server.cli("EVAL", end, "0")).toBe("1");
    await at.log.begun(2, () => next.stderr);
    await until(() => !at.log.isAlive(first), "the first command to have ended");
    at.log.check();
    expect((await holder.result).status).toBe(70);
  });

  test("the second hold of a host that is gone is taken over, by a run that does not wait too", async () => {
    await using server = await startRedis();
    const store = await openEngine(server.url, { ttl: "2s", notice: () => {} });
    const request = { name: "gone", mode: "exclusive" as const };
    const taken = `const store = await (await import(${JSON.stringify(join(root, "src/store/open-store.ts"))})).openStore(${JSON.stringify(server.url)}, { ttl: 2000 });
      await store.tryAcquire({ name: "gone", mode: "exclusive" }); console.log("held"); setInterval(() => {}, 1000);`;
    using dir = new TempDir();
    await using holder = startScript(taken, dir);
    await holder.says("held");
    holder.kill("SIGKILL");
    await holder.result;
    await until(async () => (await store.status("gone")).state === "free", "the main lock's lease to end");
    const began = performance.now();
    const second = await store.tryAcquire(secondHoldOf(request));
    expect(second).toBeDefined();
    expect(performance.now() - began).toBeWithin(1000, 5000);
    await store.close();
  });

  test("a run that waits without limit outlives a failover, and many restarts", async () => {
    await using server = await startRedis();
    await using at = scene(server);
    const holder = at.run(at.near, 600);
    await at.log.begun(1, () => holder.stderr);
    const waiter = at.run(at.near, 0, "--wait");
    await waits(waiter);
    await server.cli("REPLICAOF", "127.0.0.1", String(freePort()));
    await until(
      () => waiter.stderr.includes("READONLY"),
      "a notice",
      () => waiter.stderr,
    );
    for (let i = 0; i < 2; i++) {
      await server.kill();
      await Bun.sleep(at.ttl);
      await server.start();
      await until(
        async () => (await server.cli("PUBSUB", "CHANNELS")).includes("work"),
        "the waiter to be back",
      );
    }
    expect((await waiter.result).status).toBe(0);
    expect((await holder.result).status).toBe(70);
    at.log.check();
  });
});

test.if(hasRedis())("a cluster and a Sentinel are refused at once, in words that say why", async () => {
  await using cluster = await startRedis({ args: ["--cluster-enabled", "yes"] });
  await cluster.cli("CLUSTER", "ADDSLOTSRANGE", "0", "16383");
  await until(async () => (await cluster.cli("CLUSTER", "INFO")).includes("state:ok"), "the cluster");
  const inCluster = await exclusive(["run", "--wait", "--store", cluster.url, "t", "--", "true"]);
  expect(inCluster).toMatchObject({ status: 69, stderr: expect.stringContaining("not in cluster mode") });
  using dir = new TempDir();
  writeFileSync(dir.file("conf"), `sentinel monitor m 127.0.0.1 ${cluster.port} 1\n`);
  const port = freePort();
  const where = ["--port", String(port), "--bind", "127.0.0.1", "--dir", dir.path];
  await using sentinel = new Process(["redis-server", dir.file("conf"), "--sentinel", ...where]);
  await sentinel.says("Running mode=sentinel");
  const url = `redis://127.0.0.1:${port}`;
  await until(
    async () => (await exclusive(["status", "--store", url, "t"])).stderr.includes("Sentinel"),
    "it",
  );
  const atSentinel = await exclusive(["run", "--wait", "--store", url, "t", "--", "true"]);
  expect(atSentinel).toMatchObject({ status: 69, stderr: expect.stringContaining("may be a Sentinel") });
});
