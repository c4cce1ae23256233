/** The faults of every store, with PostgreSQL, and faults that only PostgreSQL has. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { alive } from "../../support/proc.ts";
import { start } from "../../support/process.ts";
import { hasPostgres, type PostgresServer, startPostgres } from "../../support/servers.ts";
import { until } from "../../support/until.ts";
import { faultSuite, scene } from "../faults.ts";

setDefaultTimeout(90_000);

const terminate = (which: string) =>
  `SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted AND ${which}`;

const waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";

if (hasPostgres()) {
  faultSuite("postgres", {
    start: () => startPostgres(),
    takeAway: async (server) => {
      await (server as PostgresServer).admin(terminate("application_name = 'exclusive work'"));
    },
    connectionIsLock: true,
  });

  test("the sessions of both holds are ended at once: a waiter begins when the old command is gone", async () => {
    await using server = await startPostgres();
    await using at = scene(server);
    const holder = at.run(at.far, 600);
    const first = await at.log.begun(1, () => holder.stderr);
    const next = at.run(at.near, 0, "--wait", "--verbose");
    await until(async () => (await server.admin(waits)).length > 0, "a waiter");
    await server.admin(terminate("true"));
    await at.log.begun(2, () => next.stderr);
    expect(alive(first.pid)).toBe(false);
    at.log.check();
    const { status, stderr } = await holder.result;
    expect(stderr).toContain("terminating connection due to administrator command");
    expect(status).toBe(70);
  });

  test("both are ended at once while nothing waits, and the command ignores SIGTERM: a new run begins when it is gone", async () => {
    await using server = await startPostgres();
    await using at = scene(server);
    const stubborn = ["bash", "-c", 'trap "" TERM; exec "$@"', "bash", ...at.log.command(600)];
    const env = { EXCLUSIVE_STORE: at.near };
    await using holder = start(["run", "--ttl", "3s", "work", "--", ...stubborn], { env });
    const first = await at.log.begun(1, () => holder.stderr);
    await server.admin(terminate("true"));
    const next = at.run(at.near, 0, "--wait");
    await at.log.begun(2, () => next.stderr);
    expect(alive(first.pid)).toBe(false);
    at.log.check();
    expect((await holder.result).status).toBe(70);
  });

  test("a server process crashes: all sessions end, the server forgets, and still no two commands run at once", async () => {
    await using server = await startPostgres();
    await using at = scene(server);
    const holder = at.run(at.far, 600);
    const first = await at.log.begun(1, () => holder.stderr);
    const waiting = at.run(at.near, 0, "--wait");
    await until(async () => (await server.admin(waits)).length > 0, "a waiter");
    const [{ pid }] = (await server.admin(
      "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'",
    )) as [{ pid: number }];
    process.kill(pid, "SIGKILL");
    const second = await at.log.begun(2, () => waiting.stderr);
    expect(alive(first.pid)).toBe(false);
    expect(second.token).toBeGreaterThan(first.token);
    at.log.check();
    expect((await holder.result).status).toBe(70);
    expect((await waiting.result).status).toBe(0);
  });
}
