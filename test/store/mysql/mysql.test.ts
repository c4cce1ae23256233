/** Behaviour that only MySQL and MariaDB have: names, databases, rights, proxies, and servers that forget. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { LockLost, StoreError } from "../../../src/errors.ts";
import { openEngine, openStore } from "../../../src/store/open-store.ts";
import type { Lease, Store } from "../../../src/store/store.ts";
import { certificate } from "../../support/certificate.ts";
import { root } from "../../support/paths.ts";
import { required } from "../../support/required.ts";
import { freePort, hasMariadb, type MariadbServer, startMariadb } from "../../support/servers.ts";
import { TempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";
import { SessionProxy } from "./session-proxy.ts";

const TTL = 2000;
const GALERA = "/usr/lib/galera/libgalera_smm.so";
const exclusive = (name: string) => ({ name, mode: "exclusive" as const });

/** Stores that are closed at the end of the scope. */
class Clients implements AsyncDisposable {
  readonly #open: Store[] = [];
  readonly notices: string[] = [];
  /** Opens the engine alone, where a lock is one session; or a store in which each lock has a second hold. */
  async open(url: string, secondHold = false, ttl = TTL): Promise<Store> {
    const notice = (message: string) => this.notices.push(message);
    const store = await (secondHold ? openStore : openEngine)(url, { ttl, notice });
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

describe.if(hasMariadb())("mysql", () => {
  let server: MariadbServer;
  beforeAll(async () => {
    server = await startMariadb();
    await using clients = new Clients();
    await (await (await clients.open(server.url)).tryAcquire(exclusive("first")))!.release(); // waits for one lease, so that no test does
  }, 60_000);
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
  });

  /** The connections of the user `app`, and what they run. */
  const sessions = () =>
    server.admin("SELECT ID AS id, INFO AS info FROM information_schema.PROCESSLIST WHERE USER = 'app'");
  const rows = (database = "app") =>
    server.admin(
      `SELECT token, connection_id AS id, ended FROM ${database}.exclusive_locks WHERE lock_key <> ''`,
    );
  const as = (user: string, database = "app") => `mysql://${user}@127.0.0.1:${server.port}/${database}`;

  test("names longer than 64 characters, and names that differ in case, are locks of their own", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const names = [`${"x".repeat(64)}a`, `${"x".repeat(64)}b`, "Case", "case", "CASE", "é", "e", "case "];
    const leases = [];
    for (const name of names) leases.push((await store.tryAcquire(exclusive(name)))!);
    expect(leases.every((lease) => lease !== undefined)).toBe(true);
    expect((await store.list()).map(({ name }) => name).sort()).toEqual([...names].sort());
    for (const lease of leases) await lease.release();
  });

  test("two databases of one server have locks of their own; mysql:// and mariadb:// share theirs", async () => {
    await server.admin("CREATE DATABASE other");
    await server.admin("GRANT ALL ON other.* TO app@'%'");
    await using clients = new Clients();
    const one = await clients.open(server.url);
    const other = await clients.open(server.url.replace(/app$/, "other"));
    const lease = (await one.tryAcquire(exclusive("both")))!;
    const second = (await other.tryAcquire(exclusive("both")))!;
    expect(second).toBeDefined();
    expect((await one.list()).map(({ holder }) => holder?.token)).toEqual([String(lease.token)]);
    const same = await clients.open(server.url.replace("mysql:", "mariadb:"));
    expect(await same.tryAcquire(exclusive("both"))).toBeUndefined();
    await lease.release();
    expect((await other.status("both")).state).toBe("held");
    await second.release();
  });

  test("any name and label come back unchanged, and are never run as SQL", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    for (const name of [
      "'; DROP TABLE exclusive_locks; --",
      "a'b\"c\\d`",
      "line\nline\0",
      "ünï 中 🔒",
      "? %s $1",
    ]) {
      const lease = (await store.tryAcquire({ ...exclusive(name), label: `*/;${name}` }))!;
      const { holder } = await store.status(name);
      expect(holder?.label).toBe(`*/;${name}`);
      expect((await store.list()).map((lock) => lock.name)).toEqual([name]);
      await lease.release();
    }
  });

  test("a shared lock is refused with the reason", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    for (const attempt of [store.tryAcquire, store.waitAcquire]) {
      const error = await errorOf(attempt.call(store, { name: "readers", mode: "shared" }));
      expect(error).toBeInstanceOf(TypeError);
      expect(error.message).toBe("a lock in MySQL cannot be shared: GET_LOCK has no readers");
    }
  });

  test("a URL without a database is refused: the table needs one", async () => {
    await using clients = new Clients();
    const error = await errorOf(clients.open("mysql://app:hunter2@127.0.0.1"));
    expect(error).toBeInstanceOf(TypeError);
    expect(error.message).toBe("mysql://app@127.0.0.1 has no database: mysql://USER:PASSWORD@HOST/DATABASE");
  });

  test("no session outlives its lock, or a wait that was given up", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const first = (await store.tryAcquire(exclusive("given up")))!;
    for (let i = 0; i < 5; i++) {
      const controller = new AbortController();
      const waiting = store.waitAcquire(exclusive("given up"), controller.signal);
      setTimeout(() => controller.abort(new Error("enough")), 20 * i);
      expect((await errorOf(waiting)).message).toBe("enough");
    }
    await until(async () => (await store.status("given up")).waiters === 0, "the waiters' sessions to end");
    await first.release();
    await until(async () => (await sessions()).length === 0, "the holder's session to end");
  });

  test("a wait that is given up during the handover leaves the lock free", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    for (let i = 0; i < 20; i++) {
      const first = (await store.tryAcquire(exclusive("race")))!;
      const controller = new AbortController();
      const waiting = store.waitAcquire(exclusive("race"), controller.signal).then(
        (lease) => lease,
        () => undefined,
      );
      await until(async () => (await store.status("race")).waiters === 1, "a waiter");
      const released = first.release();
      controller.abort(new Error("enough"));
      await released;
      await (await waiting)?.release();
      await (await store.tryAcquire(exclusive("race")))!.release();
    }
  });

  test("a wait that exceeds its time is given up, though the server answers nothing", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    process.kill(server.pid, "SIGSTOP");
    try {
      const waiting = store.waitAcquire(exclusive("stalled"), AbortSignal.timeout(300));
      expect((await errorOf(waiting)).name).toBe("TimeoutError");
    } finally {
      process.kill(server.pid, "SIGCONT");
    }
  });

  test("waitFree returns when the lock is free, and makes no tryAcquire fail", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const lease = (await store.tryAcquire(exclusive("free")))!;
    let free = false;
    const waits = Array.from({ length: 5 }, () =>
      store.waitFree("free").then(() => {
        free = true;
      }),
    );
    await until(async () => (await store.status("free")).waiters === 5, "five waiters");
    expect(free).toBe(false);
    await lease.release();
    for (let i = 0; i < 10; i++) await (await store.tryAcquire(exclusive("free")))!.release();
    await Promise.all(waits);
  });

  test("a waiter sends no statement for seconds while it waits", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const first = (await store.tryAcquire(exclusive("asks")))!;
    const waiting = store.waitAcquire(exclusive("asks"));
    const statement = async () => (await sessions()).find(({ info }) => String(info).includes("GET_LOCK"));
    await until(async () => (await statement()) !== undefined, "a waiter");
    const query = `SELECT QUERY_ID AS id FROM information_schema.PROCESSLIST WHERE ID = ${(await statement())!.id}`;
    const before = await server.admin(query);
    await Bun.sleep(2 * TTL); // time for six renewals of the holder
    expect(await server.admin(query)).toEqual(before);
    await first.release();
    await (await waiting).release();
  });

  test("the server's default settings end neither a wait nor a lock", async () => {
    const hasty = "wait_timeout = 1, max_statement_time = 0.2, lock_wait_timeout = 1, tx_read_only = 1";
    for (const setting of hasty.split(", ")) await server.admin(`SET GLOBAL ${setting}`);
    try {
      await using clients = new Clients();
      const store = await clients.open(server.url);
      const first = (await store.tryAcquire(exclusive("hasty")))!;
      const waiting = store.waitAcquire(exclusive("hasty"));
      await Bun.sleep(1500); // longer than each time limit
      expect(first.lost!.aborted).toBe(false);
      await first.release();
      await (await waiting).release();
    } finally {
      const usual =
        "wait_timeout = 28800, max_statement_time = 0, lock_wait_timeout = 86400, tx_read_only = 0";
      for (const setting of usual.split(", ")) await server.admin(`SET GLOBAL ${setting}`);
    }
  });

  test("an administrator ends the session: the lock is lost at once", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const lease = (await store.tryAcquire(exclusive("ended")))!;
    const lost = new Promise<unknown>((resolve) => {
      lease.lost!.addEventListener("abort", () => resolve(lease.lost!.reason));
    });
    await server.admin(`KILL ${(await rows())[0]!.id}`);
    const reason = await lost;
    expect(reason).toBeInstanceOf(LockLost);
    expect((reason as Error).message).toContain("Connection closed");
    expect((reason as Error).message).not.toContain("secret");
    await lease.release();
    await until(async () => (await store.status("ended")).state === "free", "the lock to be free");
    await (await store.tryAcquire(exclusive("ended")))!.release();
    expect(await rows()).toEqual([]); // the row that the ended session left is gone too
  });

  test("rows of vanished holders whose names are never used again go after a day", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const gone = "INSERT INTO app.exclusive_locks (lock_key, connection_id, ended, record) VALUES";
    await server.admin(`${gone} ('exclusive:old', 1, 0, ''), ('exclusive:new', 1, NULL, '')`);
    let token = 0n;
    do {
      const lease = (await store.tryAcquire(exclusive("sweep")))!;
      token = lease.token!;
      await lease.release();
    } while (token % 100n !== 0n);
    const [row, ...others] = await rows();
    expect(others).toEqual([]);
    expect(Number(row!.ended)).toBeGreaterThan(Date.now() - 60_000);
    await server.admin("DELETE FROM app.exclusive_locks WHERE lock_key = 'exclusive:new'");
  });

  test("a wrong password, a missing database, a closed port: a clear error without secrets", async () => {
    await using clients = new Clients();
    const bad = {
      "Access denied for user 'app'": server.url.replace("secret%2Fword", "hunter2"),
      "to database 'nothing'": server.url.replace(/app$/, "nothing"),
      "connection refused": `mysql://app:secret%2Fword@127.0.0.1:${freePort()}/app`,
    };
    for (const [message, url] of Object.entries(bad)) {
      const error = await errorOf((await clients.open(url)).tryAcquire(exclusive("x")));
      expect(error).toBeInstanceOf(StoreError);
      expect(error.message).toContain(message);
      expect(error.message).toContain("mysql://app@127.0.0.1");
      expect(error.message).not.toMatch(/hunter2|secret/);
    }
    const denied = (await clients.open(server.url.replace("secret%2Fword", "hunter2"))).waitAcquire(
      exclusive("x"),
    );
    expect((await errorOf(denied)).message).toContain("Access denied"); // and is not tried for ever
  });

  test("a user without the right to make the table: the error has the statements that help, and they do", async () => {
    for (const statement of [
      "CREATE DATABASE strict",
      "CREATE TABLE strict.something (id INT)",
      "CREATE USER poor@'%'",
      "GRANT SELECT ON strict.something TO poor@'%'",
    ])
      await server.admin(statement);
    await using clients = new Clients();
    const store = await clients.open(as("poor", "strict"));
    const { message } = await errorOf(store.tryAcquire(exclusive("poor")));
    expect(message).toContain("command denied to user 'poor'");
    const page = readFileSync(join(root, "docs/stores.md"), "utf8").replace(/ +--.*$/gm, "");
    const [, shown] = /(CREATE TABLE IF NOT EXISTS app.*?;)/s.exec(page)!;
    const plain = (text: string) => text.replace(/[`\s;]/g, "").replace(/(app|strict)\.(?=exclusive)/g, "");
    expect(plain(message)).toContain(plain(shown!)); // what docs/stores.md shows is what the program makes
    for (const statement of message.split("run once: ")[1]!.split("; ")) await server.admin(statement);
    await (await store.tryAcquire(exclusive("poor")))!.release();
  });

  test("a table that a backup has locked: an error within a third of a lease, and a waiter goes on waiting", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const holder = (await store.tryAcquire(exclusive("job")))!;
    const { SQL } = await import("bun");
    await using backup = new SQL({ url: server.url, adapter: "mysql", max: 1 });
    using connection = await backup.reserve();
    await connection.unsafe("LOCK TABLES exclusive_locks READ");
    expect((await errorOf(store.tryAcquire(exclusive("other")))).message).toContain("Lock wait timeout");
    const waiting = store.waitAcquire(exclusive("other"));
    await until(() => clients.notices.join().includes("Lock wait timeout"), "the waiter to say so");
    expect(holder.lost!.aborted).toBe(false); // renewals do not need the table
    await connection.unsafe("UNLOCK TABLES");
    await (await waiting).release();
    await holder.release();
  });

  test.if(required("openssl", "openssl"))("TLS, with the server's certificate checked", async () => {
    using dir = new TempDir();
    const { cert, key } = await certificate(dir);
    await using secure = await startMariadb({ args: [`--ssl-cert=${cert}`, `--ssl-key=${key}`] });
    await using clients = new Clients();
    const other = await clients.open(`${secure.url}?sslmode=verify-full`);
    expect((await errorOf(other.tryAcquire(exclusive("tls")))).message).toMatch(/certificate|self.signed/i);
    await secure.admin("ALTER USER app@'%' REQUIRE SSL");
    const plain = await clients.open(secure.url);
    expect((await errorOf(plain.tryAcquire(exclusive("tls")))).message).toContain("Access denied");
    const store = await clients.open(`${secure.url}?sslmode=require`);
    await (await store.tryAcquire(exclusive("tls")))!.release();
  });

  describe("a server that would give out one lock twice is refused", () => {
    const refusal = async (url: string): Promise<string> => {
      await using clients = new Clients();
      const store = await clients.open(url);
      const errors = [
        await errorOf(store.tryAcquire(exclusive("refused"))),
        await errorOf(store.waitAcquire(exclusive("refused"))),
      ];
      for (const error of errors) expect(error).toBeInstanceOf(StoreError);
      expect(errors[0]!.message).toBe(errors[1]!.message);
      return errors[0]!.message;
    };

    test("a proxy that moves sessions between connections", async () => {
      await server.admin("CREATE USER open@'%'");
      await server.admin("GRANT ALL ON app.* TO open@'%'");
      using proxy = new SessionProxy(server.port);
      const url = as("open").replace(String(server.port), String(proxy.port));
      expect(await refusal(url)).toContain("is a proxy such as ProxySQL");
    });

    test("a read-only replica", async () => {
      await server.admin("SET GLOBAL read_only = 1");
      try {
        expect(await refusal(server.url)).toContain("is read-only, as a replica is");
      } finally {
        await server.admin("SET GLOBAL read_only = 0");
      }
    });

    test.if(existsSync(GALERA))(
      "a node of a Galera cluster",
      async () => {
        const args = [
          "--wsrep-on=ON",
          `--wsrep-provider=${GALERA}`,
          "--wsrep-cluster-address=gcomm://",
          "--wsrep-new-cluster",
          "--binlog-format=ROW",
          "--innodb-autoinc-lock-mode=2",
          `--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:${freePort()};ist.recv_addr=127.0.0.1:${freePort()}`,
        ];
        await using node = await startMariadb({ args });
        expect(await refusal(node.url)).toContain("is a node of a Galera cluster");
      },
      90_000,
    );
  });

  test("a server that becomes read-only, as before a planned switchover, keeps no lock", async () => {
    await using clients = new Clients();
    const lease = (await (await clients.open(server.url)).tryAcquire(exclusive("switch")))!;
    await server.admin("SET GLOBAL read_only = 1");
    await until(() => lease.lost!.aborted, "the loss");
    await server.admin("SET GLOBAL read_only = 0");
    await lease.release();
  });

  describe("a server that forgets", () => {
    /** Takes the lock, and returns the milliseconds that this took since `began`. */
    async function acquired(
      clients: Clients,
      name: string,
      began: number,
    ): Promise<{ lease: Lease; after: number }> {
      const lease = (await (await clients.open(server.url)).tryAcquire(exclusive(name)))!;
      return { lease, after: performance.now() - began };
    }

    test("restarted: the next holder waits for one lease; tokens keep growing, though no row was left", async () => {
      await using clients = new Clients();
      const store = await clients.open(server.url);
      const before = (await store.tryAcquire(exclusive("restart")))!;
      await server.kill();
      await until(() => before.lost!.aborted, "the loss");
      await server.start();
      await server.admin("DELETE FROM app.exclusive_locks");
      await server.stop();
      const ttl = 10_000; // longer than the server needs to start
      const began = performance.now();
      await server.start();
      const lease = (await (await clients.open(server.url, false, ttl)).tryAcquire(exclusive("restart")))!;
      expect(performance.now() - began).toBeGreaterThanOrEqual(ttl);
      expect(lease.token!).toBeGreaterThan(before.token!);
      expect(clients.notices.join()).toContain("has just ended sessions");
      await lease.release();
    });

    test("moved to another server, as by the promotion of a replica: the next holder waits for one lease, once", async () => {
      await using clients = new Clients();
      const store = await clients.open(server.url);
      await server.admin("UPDATE app.exclusive_locks SET record = 'other 3306 1' WHERE lock_key = ''");
      const began = performance.now();
      const impatient = store.tryAcquire(exclusive("moved"), AbortSignal.timeout(TTL / 2));
      expect((await errorOf(impatient)).name).toBe("TimeoutError");
      const { lease, after } = await acquired(clients, "moved", began);
      expect(after).toBeGreaterThanOrEqual(TTL);
      expect(after).toBeLessThan(1.75 * TTL); // the wait went on from where it was given up
      await lease.release();
      const again = await acquired(clients, "moved", performance.now());
      expect(again.after).toBeLessThan(TTL);
      await again.lease.release();
    });

    test("both holds of a lock ended at once by an administrator: the next holder waits for one lease, if given up then the rest", async () => {
      await using clients = new Clients();
      const store = await clients.open(server.url, true);
      const lease = (await store.tryAcquire(exclusive("purge")))!;
      const began = performance.now();
      for (const { id } of await rows()) await server.admin(`KILL ${id}`);
      await until(() => lease.lost!.aborted, "the loss");
      await until(async () => (await sessions()).length === 0, "the sessions to end");
      const other = await clients.open(server.url, true);
      const impatient = other.tryAcquire(exclusive("purge"), AbortSignal.timeout(TTL / 2));
      expect((await errorOf(impatient)).name).toBe("TimeoutError");
      const next = (await other.tryAcquire(exclusive("purge")))!;
      const after = performance.now() - began;
      expect(after).toBeGreaterThanOrEqual(TTL);
      expect(next.token!).toBeGreaterThan(lease.token!);
      await next.release();
      expect(await rows()).toEqual([]);
    });
  });
});
