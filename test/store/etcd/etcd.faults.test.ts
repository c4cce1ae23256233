/** The faults of every store, and those of etcd alone. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { type EtcdServer, hasEtcd, startEtcd, startEtcdCluster } from "../../support/servers.ts";
import { faultSuite, scene, waits } from "../faults.ts";

setDefaultTimeout(90_000);

const base64 = (text: string) => Buffer.from(text).toString("base64");

/** The lease of the holder, not that of the second hold, which has another name. */
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

  test("two members of the cluster die: the command goes on", async () => {
    await using cluster = await startEtcdCluster(3);
    await using at = scene(cluster.members[0]!);
    const args = ["--ttl", "6s"]; // a cluster needs about two seconds to elect a leader
    const holder = at.run(cluster.url, 12, ...args);
    await at.log.begun(1, () => holder.stderr);
    const next = at.run(cluster.url, 0, "--wait", ...args);
    await waits(next);
    for (const member of cluster.members.slice(0, 2)) {
      await member.kill();
      await Bun.sleep(4500); // without a renewal it would be lost after two thirds of the lease
      await member.start();
    }
    expect((await holder.result).status).toBe(0);
    expect((await next.result).status).toBe(0);
    at.log.check();
  });
}
