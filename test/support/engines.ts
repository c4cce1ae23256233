/** The engines whose server is installed here, for what holds for each of them. */
import { afterAll, beforeAll, describe } from "bun:test";
import { openStore } from "../../src/index.ts";
import {
  hasEtcd,
  hasMariadb,
  hasPostgres,
  hasRedis,
  type ServerProcess,
  startEtcd,
  startMariadb,
  startPostgres,
  startRedis,
} from "./servers.ts";

/** A server, as far as all of them are the same. */
type Server = ServerProcess & { url: string };

const ENGINES: { engine: string; has(): boolean; start(): Promise<Server> }[] = [
  { engine: "redis", has: hasRedis, start: () => startRedis() },
  { engine: "postgres", has: hasPostgres, start: () => startPostgres() },
  { engine: "mysql", has: hasMariadb, start: () => startMariadb() },
  { engine: "etcd", has: hasEtcd, start: () => startEtcd() },
];

/** The lease of these tests: a new server lets them in after that. */
export const TTL = "2s";

/** Takes a lock once: a new server may have forgotten one, and waits for that. */
export async function takeFirstLock(url: string, ttl = TTL): Promise<void> {
  const store = await openStore(url, { ttl, notice() {} });
  await (await store.waitAcquire({ name: "first", mode: "exclusive" })).release();
  await store.close();
}

/** Declares these tests for each engine. @param env of a process that is to use the server */
export function describeEngines(
  title: string,
  tests: (engine: string, env: () => Record<string, string>, server: () => ServerProcess) => void,
  ttl = TTL,
): void {
  for (const { engine, has, start } of ENGINES) {
    describe.if(has())(`${title}: ${engine}`, () => {
      let server: Server;
      beforeAll(async () => {
        server = await start();
        await takeFirstLock(server.url, ttl);
      });
      afterAll(() => server?.[Symbol.asyncDispose]());
      tests(
        engine,
        () => ({ EXCLUSIVE_STORE: server.url }),
        () => server,
      );
    });
  }
}
