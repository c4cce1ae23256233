/** The suite of every store, against a real redis-server. */
import { test } from "bun:test";
import { hasRedis, startRedis } from "../../support/servers.ts";
import { storeSuite } from "../suite.ts";

if (hasRedis()) storeSuite("redis", () => startRedis(), { shared: true, remote: true });
else test.skip("redis-server is missing", () => {});
