/** Twenty processes and one lock, on each store. `CONTEND_SECONDS=30` is the long form. The lease is one that a busy machine can renew. */
import { expect, test } from "bun:test";
import {
  hasEtcd,
  hasMariadb,
  hasPostgres,
  hasRedis,
  startEtcd,
  startMariadb,
  startPostgres,
  startRedis,
} from "../support/servers.ts";
import { contend } from "./contention.ts";
import type { Subject } from "./suite.ts";

const milliseconds = 1000 * Number(process.env.CONTEND_SECONDS ?? 6);

interface Case {
  there: () => boolean;
  start: () => Promise<Subject>;
  /** Not too many: a killed process keeps its lock, or its place in the queue, until its lease ends. */
  killEvery: number;
}

const cases: Record<string, Case> = {
  postgres: { there: hasPostgres, start: startPostgres, killEvery: 300 },
  mysql: { there: hasMariadb, start: startMariadb, killEvery: 300 },
  redis: { there: hasRedis, start: startRedis, killEvery: 2500 },
  etcd: { there: hasEtcd, start: startEtcd, killEvery: 2500 },
};

for (const [name, { there, start, killEvery }] of Object.entries(cases)) {
  test.if(there())(
    `${name}: no two processes hold the lock at once, and tokens only grow`,
    async () => {
      await using server = await start();
      const contest = { url: server.url, ttl: "8s", processes: 20, milliseconds, atLeast: 20, killEvery };
      const { acquisitions, violations, tokens, kills, failures } = await contend(contest);
      console.log(`${name}: ${acquisitions} acquisitions, ${kills} kills`);
      expect({ violations, failures }).toEqual({ violations: [], failures: [] });
      const shrunk = tokens.filter((token, i) => i > 0 && token <= tokens[i - 1]!);
      expect(shrunk).toEqual([]);
      expect(acquisitions).toBeGreaterThan(10);
      expect(kills).toBeGreaterThan(0);
    },
    120_000,
  );
}
