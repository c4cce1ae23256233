/** `exclusive doctor --store`: verifies with real clients and a real run that locking works in a store. */
import { printable } from "../../errors.ts";
import { pause } from "../../store/lease.ts";
import { openStore } from "../../store/open-store.ts";
import type { Lease, Request, Store } from "../../store/store.ts";
import { StoreUrl } from "../../store/store-url.ts";
import { EXIT } from "../cli/exit-status.ts";
import { type Check, noVerdict, PATIENCE_MS, report, startRun } from "./checks.ts";

/** Short, so that the check of a killed run ends soon. */
const TTL = "2s";

/** @throws {StoreError} when it cannot be reached, or refuses us */
export async function doctorStore(url: string, json: boolean): Promise<number> {
  const { redacted: shown } = new StoreUrl(url);
  const facts = await prepare(url);
  const [first, second] = await Promise.all([openStore(url, { ttl: TTL }), openStore(url, { ttl: TTL })]);
  const request: Request = { name: `doctor ${crypto.randomUUID()}`, mode: "exclusive" };
  const checks = [...(await betweenClients(first, second, request)), await afterKill(second, url, request)];
  await Promise.all([first.close(), second.close()]);
  const ok = report(shown, checks, json, { store: shown }, facts);
  return ok ? EXIT.OK : EXIT.IO_ERROR;
}

/**
 * Takes a lock with the default lease. A new or emptied server makes that wait, once: here, so that no run does.
 * @returns what an operator should know of the server
 */
async function prepare(url: string): Promise<Record<string, string>> {
  const store = await openStore(url);
  try {
    const lease = await store.tryAcquire({ name: `doctor ${crypto.randomUUID()}`, mode: "exclusive" });
    await lease?.release();
    const asked = performance.now();
    await store.status("doctor");
    const latency = `${(performance.now() - asked).toFixed(1)} ms to ask for a lock's state`;
    return { latency, ...(await store.facts?.()) };
  } finally {
    await store.close();
  }
}

async function betweenClients(first: Store, second: Store, request: Request): Promise<Check[]> {
  const held = await first.tryAcquire(request);
  const refused = held !== undefined && (await second.tryAcquire(request)) === undefined;
  const waiting = second.waitAcquire(request, AbortSignal.timeout(PATIENCE_MS)).catch(() => undefined);
  await held?.release();
  const next: Lease | undefined = await waiting;
  const grows = next?.token !== undefined && held?.token !== undefined && next.token > held.token;
  await next?.release();
  return [
    {
      check: "excludes",
      ok: refused,
      details: refused
        ? "a lock held by one client is refused to another"
        : "two clients had one lock at the same time",
    },
    {
      check: "freed by release",
      ok: next !== undefined,
      details: next
        ? "a waiter gets a lock that is released"
        : `a waiter did not get a released lock within ${PATIENCE_MS / 1000}s`,
    },
    {
      check: "tokens grow",
      ok: grows,
      details: grows
        ? `the second holder's token, ${next!.token}, is larger than the first one's`
        : "the second holder's token is not larger than the first one's",
    },
  ];
}

/** A run whose wrapper is killed: its command is stopped, and the lock is free when the lease has ended. */
async function afterKill(store: Store, url: string, { name }: Request): Promise<Check> {
  // The URL is not an argument, which others could see.
  const run = startRun(["--ttl", TTL, name, "--", "cat"], { ...process.env, EXCLUSIVE_STORE: url });
  run.stdin.write("held\n");
  run.stdin.flush();
  const { value } = await run.stdout.getReader().read();
  if (value === undefined) throw await noVerdict(run);
  const held = (await store.status(name)).state === "held";
  run.kill("SIGKILL");
  await run.exited;
  const killed = performance.now();
  let free = false;
  while (held && !free && performance.now() < killed + PATIENCE_MS) {
    free = (await store.status(name)).state === "free";
    if (!free) await pause(50);
  }
  const seconds = ((performance.now() - killed) / 1000).toFixed(1);
  return {
    check: "freed by kill",
    ok: free,
    details: free
      ? `the lock of a killed process was free after ${seconds}s (its lease was ${TTL})`
      : `a killed process keeps the lock '${printable(name)}'`,
  };
}
