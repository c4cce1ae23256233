/** The faults of every store, with MariaDB, and faults that only MySQL and MariaDB have. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { alive } from "../../support/proc.ts";
import { start } from "../../support/process.ts";
import { hasMariadb, type MariadbServer, startMariadb } from "../../support/servers.ts";
import { until } from "../../support/until.ts";
import { faultSuite, scene, waits } from "../faults.ts";

setDefaultTimeout(90_000);

/** Ends the sessions that hold a lock: the newest first, the second hold's. */
async function endHolders(server: MariadbServer, count: number): Promise<void> {
  const rows = await server.admin(
    "SELECT connection_id AS id FROM app.exclusive_locks WHERE lock_key <> '' ORDER BY token DESC",
  );
  const ids = rows.map(({ id }) => id).slice(-count);
  for (const id of ids) await server.admin(`KILL ${id}`);
}

if (hasMariadb()) {
  faultSuite("mysql", {
    start: () => startMariadb(),
    takeAway: (server) => endHolders(server as MariadbServer, 1),
    connectionIsLock: true,
  });

  test("the sessions of both holds are ended at once: a waiter begins when the old command is gone", async () => {
    await using server = await startMariadb();
    await using at = scene(server);
    const holder = at.run(at.far, 600);
    const first = await at.log.begun(1, () => holder.stderr);
    const next = at.run(at.near, 0, "--wait");
    await waits(next);
    await endHolders(server, 2);
    await at.log.begun(2, () => next.stderr);
    expect(alive(first.pid)).toBe(false);
    at.log.check();
    const { status, stderr } = await holder.result;
    expect(stderr).toContain("lost the lock 'work'");
    expect(status).toBe(70);
  });

  test("both are ended at once while nothing waits, and the command ignores SIGTERM: a new run begins when it is gone", async () => {
    await using server = await startMariadb();
    await using at = scene(server);
    const stubborn = ["bash", "-c", 'trap "" TERM; exec "$@"', "bash", ...at.log.command(600)];
    const env = { EXCLUSIVE_STORE: at.near };
    await using holder = start(["run", "--ttl", "3s", "work", "--", ...stubborn], { env });
    const first = await at.log.begun(1, () => holder.stderr);
    await endHolders(server, 2);
    const next = at.run(at.near, 0, "--wait");
    await at.log.begun(2, () => next.stderr);
    expect(alive(first.pid)).toBe(false);
    at.log.check();
    expect((await holder.result).status).toBe(70);
  });

  test("a wrapper that is stopped for longer than its lease keeps no lock: the server ends its session", async () => {
    await using server = await startMariadb();
    await using at = scene(server);
    const holder = at.run(at.near, 600);
    const first = await at.log.begun(1, () => holder.stderr);
    const all = [at.guardian(holder), first.pid, holder.pid];
    for (const pid of all) process.kill(pid, "SIGSTOP");
    const next = at.run(at.near, 600, "--wait");
    const second = await at.log.begun(2, () => next.stderr);
    expect(second.token).toBeGreaterThan(first.token); // what it writes with the old one can be refused
    for (const pid of all.reverse()) process.kill(pid, "SIGCONT");
    const { status } = await holder.result;
    expect(status).toBe(70);
    expect(alive(first.pid)).toBe(false);
    at.log.finish(second);
    await next.result;
  });

  test("a run that waits without limit gets the lock after the server was away, and says so once", async () => {
    await using server = await startMariadb();
    await using at = scene(server);
    const holder = at.run(at.near, 600);
    await at.log.begun(1, () => holder.stderr);
    const next = at.run(at.near, 0, "--wait");
    await waits(next);
    await server.stop();
    await until(() => next.stderr.includes("trying again"), "a notice");
    await Bun.sleep(2 * at.ttl + 2000); // longer than a lease
    await server.start();
    await at.log.begun(2, () => next.stderr);
    expect((await next.result).status).toBe(0);
    expect(next.stderr.match(/trying again/g)).toHaveLength(1);
    at.log.check();
  });
} else test.skip("mariadb-server is missing", () => {});
