/** Waiting in PostgreSQL: it harms nobody, and outlives the server. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { exclusive, type Process } from "../../support/process.ts";
import { hasPostgres, type PostgresServer, startPostgres } from "../../support/servers.ts";
import { until } from "../../support/until.ts";
import { scene, waits } from "../faults.ts";

setDefaultTimeout(90_000);

describe.if(hasPostgres())("waiting in postgres", () => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await startPostgres();
    await using first = scene(server);
    await first.run(first.near, 0).result;
  }, 90_000);
  afterAll(() => server?.[Symbol.asyncDispose]());

  test("an index is built concurrently, in the same database, beside ten runs that wait", async () => {
    await using at = scene(server);
    const holder = at.run(at.near, 600);
    const first = await at.log.begun(1, () => holder.stderr);
    const waiters = Array.from({ length: 10 }, () => at.run(at.near, 0, "--wait"));
    for (const waiter of waiters) await waits(waiter);
    // Each leaves the queue for a moment several times a second: they are not seen there all at once.
    const queued = new Set<unknown>();
    await until(
      async () => {
        const rows = await server.admin(
          "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted",
        );
        for (const { pid } of rows) queued.add(pid);
        return queued.size >= 10;
      },
      "ten waiters in the server's queue",
      () => `${queued.size} were seen`,
    );
    await server.admin("CREATE TABLE items AS SELECT 1 AS id");
    const built = server.admin("CREATE INDEX CONCURRENTLY items_id ON items (id)").then(() => "built");
    expect(await Promise.race([built, Bun.sleep(20_000)])).toBe("built");
    at.log.finish(first);
    for (const waiter of waiters) expect((await waiter.result).status).toBe(0);
    at.log.check();
  });

  test("a run that waits without limit begins while the server is away, and outlives two restarts", async () => {
    await using own = await startPostgres();
    await own.stop();
    await using at = scene(own);
    const late = at.run(at.near, 0, "--wait");
    await until(
      () => late.stderr.includes("trying again"),
      "a notice",
      () => late.stderr,
    );
    await own.start();
    expect((await late.result).status).toBe(0);
    const holder = at.run(at.near, 600);
    await at.log.begun(2, () => holder.stderr);
    const waiter = at.run(at.near, 0, "--wait");
    await waits(waiter);
    const notices = () => waiter.stderr.split("trying again").length - 1;
    await own.stop();
    await until(() => notices() === 1, "the notice of the first outage");
    await Bun.sleep(at.ttl + 1000); // longer than a lease
    await own.start();
    await until(() => waiter.stderr.includes("an earlier holder") || !waiter.running, "the server's answer");
    await own.stop();
    await until(
      () => notices() === 2,
      "the notice of the second outage",
      () => waiter.stderr,
    );
    await own.start();
    expect((await waiter.result).status).toBe(0);
    expect(notices()).toBe(2);
    expect((await holder.result).status).toBe(70);
    at.log.check();
  });

  test("--timeout is kept while the server is stalled, and then the status is that of a store out of reach", async () => {
    await using at = scene(server);
    at.proxy.hold("both");
    const began = performance.now();
    const args = ["run", "--store", at.far, "--timeout", "2s", "stalled", "--", "true"];
    const skipped = exclusive(args.toSpliced(1, 0, "--if-held", "skip"));
    const { status, stderr } = await exclusive(args);
    expect(performance.now() - began).toBeLessThan(6000);
    expect({ status, says: stderr.includes("no answer") }).toEqual({ status: 69, says: true });
    expect((await skipped).status).toBe(69);
  });

  test("sessions of others that an administrator ends delay no waiter", async () => {
    await using at = scene(server);
    const holder = at.run(at.near, 600, "--ttl", "20s");
    const first = await at.log.begun(1, () => holder.stderr);
    const next: Process = at.run(at.near, 0, "--wait", "--ttl", "20s");
    await waits(next);
    await Bun.sleep(2000);
    await server.admin(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name NOT LIKE 'exclusive%' AND pid <> pg_backend_pid()",
    );
    const victim = server.admin("SELECT pg_sleep(60)").catch(() => undefined);
    const end =
      "SELECT pg_terminate_backend(pid) AS ended FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
    await until(async () => (await server.admin(end))[0]?.ended === true, "a session to be ended");
    await victim;
    await Bun.sleep(3000); // the waiter looks again
    at.log.finish(first);
    expect((await next.result).status).toBe(0); // within the limit of this test
    expect(next.stderr).not.toContain("an earlier holder");
  });
});
