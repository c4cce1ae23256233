/** Takes one lock of a store again and again: `contention.worker.ts SCENE URL TTL ID SEED`. */
import { appendFileSync, existsSync } from "node:fs";
import { openStore } from "../../src/store/open-store.ts";
import { Scene } from "../torture/checker.ts";
import { Random } from "../torture/random.ts";
import { LOCK, tokenLog } from "./contention.ts";

const [dir, url, ttl, id, seed] = process.argv.slice(2) as [string, string, string, string, string];
const scene = new Scene(dir);
const record = scene.recorder();
const random = new Random(Number(seed));
const store = await openStore(url, { ttl, notice: () => {} });
const request = { name: LOCK, mode: "exclusive" as const };

/** Most calls wait, some only try, and some give up. */
async function acquire() {
  if (random.chance(0.2)) return store.tryAcquire(request);
  const signal = random.chance(0.2) ? AbortSignal.timeout(random.below(200)) : undefined;
  try {
    return await store.waitAcquire(request, signal);
  } catch (error) {
    if (signal?.aborted) return undefined;
    throw error;
  }
}

while (!existsSync(`${dir}/stop`)) {
  const lease = await acquire();
  if (lease === undefined) {
    await Bun.sleep(random.below(50));
    continue;
  }
  record.enter(LOCK, "x", id);
  appendFileSync(tokenLog(scene), `${lease.token}\n`);
  await Bun.sleep(random.below(20));
  if (lease.lost!.aborted) throw lease.lost!.reason;
  record.leave(LOCK, "x", id);
  await lease.release();
}
await store.close();
process.exit(0);
