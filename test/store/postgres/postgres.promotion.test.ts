/** A standby that is promoted has forgotten every lock: advisory locks are not replicated. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { alive } from "../../support/proc.ts";
import { exclusive, start } from "../../support/process.ts";
import { hasPostgres, startPostgres } from "../../support/servers.ts";
import { scene, waits } from "../faults.ts";

setDefaultTimeout(120_000);

const both = (primary: string, standby: string) => {
  const [, port] = /:(\d+)\/postgres/.exec(standby)!;
  return primary.replace("/postgres", `,127.0.0.1:${port}/postgres?target_session_attrs=read-write`);
};

if (hasPostgres()) {
  for (const [how, end] of [
    ["the primary server loses power", "kill"],
    ["a planned switchover", "stop"],
  ] as const) {
    test(`${how}: a run at the promoted standby begins when the old command is gone`, async () => {
      await using primary = await startPostgres();
      await using standby = await primary.standby();
      await using at = scene(primary);
      const url = both(primary.url, standby.url);
      const holder = at.run(url, 600);
      const first = await at.log.begun(1, () => holder.stderr);
      const waiter = at.run(url, 0, "--wait");
      await waits(waiter);
      await primary[end]();
      await standby.promote();
      const newcomer = at.run(standby.url, 0, "--wait");
      const next = await at.log.begun(2, () => `${newcomer.stderr}${waiter.stderr}`);
      expect(alive(first.pid)).toBe(false);
      expect(next.token).toBeGreaterThan(first.token);
      expect((await holder.result).status).toBe(70);
      expect((await newcomer.result).status).toBe(0);
      expect((await waiter.result).status).toBe(0);
      at.log.check();
    });
  }

  test("a promoted server that has made a checkpoint more than a lease ago makes nobody wait", async () => {
    await using primary = await startPostgres();
    await using standby = await primary.standby();
    await primary.stop();
    await standby.promote();
    await standby.admin("CHECKPOINT");
    await Bun.sleep(4500);
    const began = performance.now();
    const { status, stderr } = await exclusive([
      "run",
      "--store",
      standby.url,
      "--ttl",
      "3s",
      "work",
      "true",
    ]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(performance.now() - began).toBeLessThan(3000);
  });

  test("a standby as the target is refused with the reason; with the primary beside it, that one is used", async () => {
    await using primary = await startPostgres();
    await using standby = await primary.standby();
    const refused = await exclusive(["run", "--store", standby.url, "work", "true"]);
    expect(refused.status).toBe(69);
    expect(refused.stderr).toContain("read-only standby");
    await using used = start([
      "run",
      "--ttl",
      "2s",
      "--store",
      both(standby.url, primary.url),
      "work",
      "true",
    ]);
    expect(await used.result).toMatchObject({ status: 0 });
  });
}
