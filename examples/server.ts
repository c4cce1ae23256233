/**
 * A server that runs on several hosts, and a job that must run on one of them only.
 *
 *     bun server.ts postgres://user@db/app        # or redis://…, etcd://…; EXCLUSIVE_STORE does as well
 *
 * Every instance serves. One of them holds the lock and does the work; when it goes, or loses its lease, another one
 * goes on: at once when it gives the lock back, when its lease has run out (`TTL`) where it could not. `GET /` says which
 * one this is.
 */
import { Lock } from "exclusiveprocess";

const store = process.argv[2] ?? process.env.EXCLUSIVE_STORE;
const stop = new AbortController();
let working: bigint | undefined;

const server = Bun.serve({
  port: Number(process.env.PORT ?? 0),
  fetch: () =>
    Response.json({ pid: process.pid, working: working !== undefined, token: String(working ?? "") }),
});
console.log(`listening on ${server.url}`);

for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());

while (!stop.signal.aborted) {
  try {
    await using lock = await new Lock({ name: "the job", store, ttl: process.env.TTL ?? "15s" }).acquire({
      wait: true,
      signal: stop.signal,
    });
    working = lock.token ?? 0n;
    // The work ends when we are told to stop, and when the lock can no longer be proven to be ours.
    await work(AbortSignal.any([stop.signal, ...(lock.lost ? [lock.lost] : [])]));
  } catch (error) {
    if (stop.signal.aborted) break;
    console.error(String(error));
    await Bun.sleep(1000); // the store is away: try again
  } finally {
    working = undefined;
  }
}
await server.stop(true);

/** Does a little, again and again, until the signal fires. */
async function work(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    console.log(`working with token ${working}`);
    await Bun.sleep(100);
  }
}
