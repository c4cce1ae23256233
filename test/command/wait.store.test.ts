/** `exclusive wait` with a store: its limit of time, and a server that is away; and why there is no connection, in words. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { clock } from "../../src/os/clock.ts";
import { exclusive, start } from "../support/process.ts";
import { freePort, hasRedis, RedisServer } from "../support/servers.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(60_000);

const STORES = { redis: "0", postgres: "app", mysql: "app", etcd: "app" };

for (const [engine, path] of Object.entries(STORES)) {
  const url = (host: string) => `${engine}://${engine === "redis" ? "" : "app@"}${host}/${path}`;

  test(`${engine}: a server that accepts and is silent delays no --timeout, and means 69`, async () => {
    using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const store = ["--store", url(`127.0.0.1:${silent.port}`), "--timeout", "1500ms"];
    for (const args of [
      ["wait", ...store, "t"],
      ["run", ...store, "t", "--", "echo", "no"],
    ]) {
      const from = clock();
      expect(await exclusive(args)).toMatchObject({
        status: 69,
        stdout: "",
        stderr: expect.stringContaining("no answer"),
      });
      expect(clock() - from).toBeGreaterThan(1490);
      expect(clock() - from).toBeLessThan(5000);
    }
  });

  test(`${engine}: an unknown host and a closed port are named as such`, async () => {
    for (const [host, why] of [
      ["absent.invalid", "unknown host 'absent.invalid'"],
      [`127.0.0.1:${freePort()}`, "connection refused"],
    ] as const) {
      const { status, stderr } = await exclusive(["run", "--store", url(host), "t", "--", "echo", "no"]);
      expect({ status, stderr }).toEqual({ status: 69, stderr: expect.stringContaining(`: ${why}\n`) });
    }
  });
}

test.if(hasRedis())(
  "a wait without limit begins while the server is away, and reports that once",
  async () => {
    await using server = new RedisServer();
    await using waiting = start(["wait", "--store", server.url, "t"]);
    await until(
      () => waiting.stderr.includes("trying again"),
      "the notice",
      () => waiting.stderr,
    );
    await server.start();
    const { status, stderr } = await waiting.result;
    expect({ status, lines: stderr.trim().split("\n").length }).toEqual({ status: 0, lines: 1 });
  },
);

test.if(hasRedis())("a run that waits begins while the server is away, by whichever policy", async () => {
  await using server = new RedisServer();
  const policies = [
    ["--wait"],
    ["--if-held", "coalesce"],
    ["--if-held", "latest"],
    ["--wait", "--slots", "2"],
  ];
  const all = policies.map((policy, i) =>
    start(["run", "--store", server.url, "--ttl", "2s", ...policy, `t${i}`, "--", "echo", "ran"]),
  );
  for (const run of all) await until(() => !run.running || run.stderr.includes("trying again"), "the notice");
  await server.start();
  const results = await Promise.all(all.map(({ result }) => result));
  expect(results.map(({ status, stdout }) => ({ status, stdout }))).toEqual(
    policies.map(() => ({ status: 0, stdout: "ran\n" })),
  );
});
