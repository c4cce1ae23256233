/** The faults of every store, with etcd, and faults that only etcd has. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { type EtcdServer, hasEtcd, startEtcd, startEtcdCluster } from "../../support/servers.ts";
import { until } from "../../support/until.ts";
import { faultSuite, scene, waits } from "../faults.ts";

setDefaultTimeout(90_000);

const base64 = (text: string) => Buffer.from(text).toString("base64");

/** The lease of the lock's holder; its second hold has another name. */
async function leaseOf(server: EtcdServer, name: string): Promise<string> {
  const range = { key: base64(`exclusive/${name}/`), range_end: base64(`exclusive/${name}0`) };
  const { kvs } = (await server.post("kv/range", { ...range, sort_target: "CREATE" })) as {
    kvs: { lease: string }[];
  };
  return kvs[0]!.lease;
}

if (hasEtcd()) {
  faultSuite("etcd", {
    start: () => startEtcd(),
    takeAway: async (server) => {
      const etcd = server as EtcdServer;
      await etcd.post("lease/revoke", { ID: await leaseOf(etcd, "work") });
    },
    remembers: true,
  });

  test("a run that waits without limit begins while etcd is away, and outlives two restarts", async () => {
    await using server = await startEtcd();
    await server.kill();
    await using at = scene(server);
    const waiter = at.run(at.near, 0, "--wait");
    const notices = () => waiter.stderr.split("trying again").length - 1;
    await until(
      () => notices() === 1,
      "a notice",
      () => waiter.stderr,
    );
    await Bun.sleep(2 * at.ttl);
    await server.start();
    const { status, stderr } = await waiter.result;
    expect({ status, stderr }).toMatchObject({ status: 0 });
    const holder = at.run(at.near, 600);
    await at.log.begun(2, () => holder.stderr);
    const next = at.run(at.near, 0, "--wait");
    await waits(next);
    for (let i = 0; i < 2; i++) {
      await server.kill();
      await Bun.sleep(2 * at.ttl);
      await server.start();
      await Bun.sleep(1000);
    }
    expect((await next.result).status).toBe(0);
    at.log.check();
  });

  test("two members of the cluster are killed, one after the other: the command continues", async () => {
    await using cluster = await startEtcdCluster(3);
    await using at = scene(cluster.members[0]!);
    const args = ["--ttl", "9s"]; // a cluster needs about two seconds to elect a leader, and more on a busy machine
    const holder = at.run(cluster.url, 17, ...args);
    await at.log.begun(1, () => holder.stderr);
    const next = at.run(cluster.url, 0, "--wait", ...args);
    await waits(next);
    for (const member of cluster.members.slice(0, 2)) {
      await member.kill();
      await Bun.sleep(6500); // longer than two thirds of the lease: without a renewal the lock would be lost
      await member.start();
    }
    const { status, stderr } = await holder.result;
    expect({ status, stderr }).toMatchObject({ status: 0 });
    expect((await next.result).status).toBe(0);
    at.log.check();
  });
}
