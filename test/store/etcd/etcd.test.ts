/** Behaviour that only etcd has: its lock service, leases, clusters and users. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Duration } from "../../../src/duration.ts";
import { LockLost, StoreError } from "../../../src/errors.ts";
import { openEngine, openStore } from "../../../src/store/open-store.ts";
import { type Lease, type Store, TimeIsUp } from "../../../src/store/store.ts";
import { certificate } from "../../support/certificate.ts";
import { required } from "../../support/required.ts";
import { type EtcdServer, freePort, hasEtcd, startEtcd } from "../../support/servers.ts";
import { TempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";

const TTL = 3000;
const exclusive = (name: string) => ({ name, mode: "exclusive" as const });
const base64 = (text: string) => Buffer.from(text).toString("base64");

/** Stores that are closed at the end of the scope. */
class Clients implements AsyncDisposable {
  readonly #open: Store[] = [];
  /** Opens the engine alone: one lease a lock, no second hold. */
  async open(url: string, ttl: Duration = TTL): Promise<Store> {
    const store = await openEngine(url, { ttl, notice: () => {} });
    this.#open.push(store);
    return store;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    for (const store of this.#open) await store.close();
  }
}

const errorOf = (promise: Promise<unknown>): Promise<Error> =>
  promise.then(
    () => new Error("no error"),
    (error) => error,
  );

const loss = (lease: Lease): Promise<unknown> =>
  new Promise((resolve) => {
    if (lease.lost!.aborted) resolve(lease.lost!.reason);
    lease.lost!.addEventListener("abort", () => resolve(lease.lost!.reason));
  });

describe.if(hasEtcd())("etcd", () => {
  let server: EtcdServer;
  beforeAll(async () => {
    server = await startEtcd();
  }, 60_000);
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });

  interface Keys {
    kvs?: { key: string; lease: string }[];
  }
  /** The keys of a lock, the oldest first. */
  const keys = async (name: string) => {
    const range = { key: base64(`exclusive/${name}/`), range_end: base64(`exclusive/${name}0`) };
    return ((await server.post("kv/range", { ...range, sort_target: "CREATE" })) as Keys).kvs ?? [];
  };
  const queue = (name: string, length: number) =>
    until(async () => (await keys(name)).length === length, `${length} in the queue of ${name}`);

  test("an administrator revokes the lease: the lock is lost at once", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const lease = (await store.tryAcquire(exclusive("revoked")))!;
    const lost = loss(lease);
    const began = performance.now();
    await server.post("lease/revoke", { ID: (await keys("revoked"))[0]!.lease });
    const reason = await lost;
    expect(performance.now() - began).toBeLessThan(TTL / 3);
    expect(reason).toBeInstanceOf(LockLost);
    expect((reason as Error).message).toContain("its lease revoked");
    await lease.release();
  });

  test("a key that is deleted while its lease lives: lost as well", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const lease = (await store.tryAcquire(exclusive("deleted")))!;
    const lost = loss(lease);
    await server.post("kv/deleterange", { key: (await keys("deleted"))[0]!.key });
    expect(await lost).toBeInstanceOf(LockLost);
    await lease.release();
  });

  test("a waiter that loses its place in the queue queues again, and does not get the lock", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const first = (await store.tryAcquire(exclusive("place")))!;
    let got: Lease | undefined;
    const waiting = store.waitAcquire(exclusive("place")).then((lease) => {
      got = lease;
    });
    for (const how of ["lease", "key"]) {
      await queue("place", 2);
      const [, place] = await keys("place");
      if (how === "lease") await server.post("lease/revoke", { ID: place!.lease });
      else await server.post("kv/deleterange", { key: place!.key });
      await until(
        async () => (await keys("place")).some(({ key }, i) => i === 1 && key !== place!.key),
        "a new place",
      );
      expect(got).toBeUndefined();
    }
    await first.release();
    await waiting;
    await got!.release();
  });

  test("the queue is etcd's own: other users of its lock service wait in it", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const { ID } = await server.post("lease/grant", { TTL: 60 });
    await server.post("lock/lock", { name: base64("exclusive/both"), lease: ID });
    expect(await store.tryAcquire(exclusive("both"))).toBeUndefined();
    expect(await store.status("both")).toMatchObject({ state: "held", holder: {} });
    const waiting = store.waitAcquire(exclusive("both"));
    await queue("both", 2);
    await server.post("lease/revoke", { ID });
    await (await waiting).release();
  });

  test("no key outlives its lock, or a wait that was given up", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const first = (await store.tryAcquire(exclusive("given up")))!;
    for (let i = 0; i < 5; i++) {
      const controller = new AbortController();
      const waiting = store.waitAcquire(exclusive("given up"), controller.signal);
      setTimeout(() => controller.abort(new Error("enough")), 10 * i);
      expect((await errorOf(waiting)).message).toBe("enough");
    }
    expect(await keys("given%20up")).toHaveLength(1);
    await first.release();
    expect(await keys("given%20up")).toHaveLength(0);
  });

  test("a waiter requests only its renewals", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const first = (await store.tryAcquire(exclusive("asks")))!;
    const waiting = store.waitAcquire(exclusive("asks"));
    await queue("asks", 2);
    const before = await server.requests();
    await Bun.sleep(2 * TTL);
    const after = await server.requests();
    const made = (method: string) => (after.get(method) ?? 0) - (before.get(method) ?? 0);
    // Both renew, six or seven times each, and check that their keys exist.
    expect(made("LeaseKeepAlive")).toBeWithin(8, 17);
    expect(made("Range")).toBeWithin(8, 17);
    for (const method of ["Txn", "Lock", "Watch", "LeaseGrant", "Put"])
      expect([method, made(method)]).toEqual([method, 0]);
    await first.release();
    await (await waiting).release();
  });

  test("waitFree returns when the lock is free, and creates no key", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    await store.waitFree("free");
    const lease = (await store.tryAcquire(exclusive("free")))!;
    let free = false;
    const waiting = store.waitFree("free").then(() => {
      free = true;
    });
    await Bun.sleep(200);
    expect([free, (await keys("free")).length]).toEqual([false, 1]);
    await lease.release();
    await waiting;
    const controller = new AbortController();
    const again = (await store.tryAcquire(exclusive("free")))!;
    const given = errorOf(store.waitFree("free", controller.signal));
    setTimeout(() => controller.abort(new Error("enough")), 50);
    expect((await given).message).toBe("enough");
    await again.release();
  });

  test("a shared lock is refused with the reason", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const error = await errorOf(store.tryAcquire({ name: "shared", mode: "shared" }));
    expect(error).toBeInstanceOf(TypeError);
    expect(error.message).toContain("cannot be shared");
  });

  test("malformed URLs", async () => {
    const bad = {
      "no parameter 'nothing'": "etcds://127.0.0.1/?nothing=1",
      "needs TLS": "etcd://127.0.0.1/?cacert=/x",
      "not a host": "etcd://a b:1/",
      "such as etcd://HOST": "etcd:///prefix",
    };
    for (const [message, url] of Object.entries(bad)) {
      const error = await errorOf(openStore(url));
      expect(error).toBeInstanceOf(TypeError);
      expect(error.message).toContain(message);
    }
  });

  test("no endpoint answers: a clear error without secrets", async () => {
    await using clients = new Clients();
    const store = await clients.open(`etcd://me:hunter2@127.0.0.1:${freePort()},127.0.0.1:${freePort()}/x`);
    const late = new AbortController(); // who waits without limit waits for the server too
    setTimeout(() => late.abort(new TimeIsUp()), 500);
    for (const attempt of [
      store.tryAcquire(exclusive("x")),
      store.waitAcquire(exclusive("x"), late.signal),
    ]) {
      const error = await errorOf(attempt);
      expect(error).toBeInstanceOf(StoreError);
      expect(error.message).toContain("etcd://me@127.0.0.1");
      expect(error.message).not.toContain("hunter2");
    }
  });

  test("many locks in one process keep their leases, also beside 256 slow requests of the application", async () => {
    await using clients = new Clients();
    using silent = Bun.serve({ port: 0, fetch: () => new Promise<Response>(() => {}), idleTimeout: 0 });
    const stop = new AbortController();
    const slow = Array.from({ length: 256 }, () => errorOf(fetch(silent.url, { signal: stop.signal })));
    const store = await clients.open(server.url, "15s");
    const leases: Lease[] = [];
    for (let i = 0; i < 150; i++) leases.push((await store.tryAcquire(exclusive(`many ${i}`)))!);
    const waiters = Array.from({ length: 150 }, (_, i) => store.waitAcquire(exclusive(`many ${i}`)));
    await Bun.sleep(12_000); // without a renewal they would be lost after 10 s
    expect(leases.filter(({ lost }) => lost!.aborted).length).toBe(0);
    for (const lease of leases) await lease.release();
    for (const waiter of waiters) await (await waiter).release();
    stop.abort(new Error("enough"));
    await Promise.all(slow);
  }, 90_000);

  test("a token that expires while a lock is held and waited for is replaced", async () => {
    await using own = await startEtcd({ args: ["--auth-token-ttl", "1"] });
    await own.post("auth/role/add", { name: "root" });
    await own.post("auth/user/add", { name: "root", password: "secret" });
    await own.post("auth/user/grant", { user: "root", role: "root" });
    await own.post("auth/enable", {});
    await using clients = new Clients();
    const store = await clients.open(own.url.replace("://", "://root:secret@"));
    const lease = (await store.tryAcquire(exclusive("x")))!;
    const waiting = store.waitAcquire(exclusive("x"));
    await Bun.sleep(3 * TTL);
    expect(lease.lost!.aborted).toBe(false);
    await lease.release();
    await (await waiting).release();
  }, 60_000);

  test("a user with a password and access to one prefix", async () => {
    await using own = await startEtcd();
    for (const name of ["root", "app"]) await own.post("auth/role/add", { name });
    const range = { key: base64("team/"), range_end: base64("team0") };
    await own.post("auth/role/grant", { name: "app", perm: { permType: "READWRITE", ...range } });
    for (const name of ["root", "app"]) {
      await own.post("auth/user/add", { name, password: "p@ss/word" });
      await own.post("auth/user/grant", { user: name, role: name });
    }
    await own.post("auth/enable", {});
    await using clients = new Clients();
    const url = (user: string, prefix: string) => own.url.replace("://", `://${user}@`) + prefix;
    const store = await clients.open(url("app:p%40ss%2Fword", "/team"));
    const lease = (await store.tryAcquire(exclusive("x")))!;
    const waiting = store.waitAcquire(exclusive("x"));
    await until(async () => (await store.status("x")).waiters === 1, "a waiter");
    await lease.release();
    const next = await waiting;
    await Bun.sleep(TTL);
    expect(next.lost!.aborted).toBe(false);
    expect((await store.list()).map(({ name }) => name)).toEqual(["x"]);
    await next.release();
    const bad = {
      "permission denied": url("app:p%40ss%2Fword", "/other"),
      "authentication failed": url("app:hunter2", "/team"),
      "user name is empty": `${own.url}/team`,
    };
    for (const [message, url] of Object.entries(bad)) {
      const error = await errorOf((await clients.open(url)).tryAcquire(exclusive("x")));
      expect(error).toBeInstanceOf(StoreError);
      expect(error.message).toContain(message);
      expect(error.message).not.toMatch(/hunter2|p@ss|p%40ss/);
    }
  }, 60_000);

  test.if(required("openssl", "openssl"))("TLS, with the server's certificate checked", async () => {
    using dir = new TempDir();
    const tls = await certificate(dir);
    await using own = await startEtcd({ tls });
    await using clients = new Clients();
    const store = await clients.open(own.url);
    const lease = (await store.tryAcquire(exclusive("tls")))!;
    const waiting = store.waitAcquire(exclusive("tls"));
    await until(async () => (await store.status("tls")).waiters === 1, "a waiter");
    await lease.release();
    await (await waiting).release();
    const other = await clients.open(own.url.replace(/\?.*/, ""));
    expect((await errorOf(other.tryAcquire(exclusive("tls")))).message).toMatch(/certificate/i);
  });
});
