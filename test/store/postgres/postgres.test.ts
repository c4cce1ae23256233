/** Behaviour that only PostgreSQL has: sessions, settings, poolers, and servers that forget. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { LockLost, StoreError } from "../../../src/errors.ts";
import { openEngine, openStore } from "../../../src/store/open-store.ts";
import type { Lease, Store } from "../../../src/store/store.ts";
import { certificate } from "../../support/certificate.ts";
import { root } from "../../support/paths.ts";
import { command, Process } from "../../support/process.ts";
import { required } from "../../support/required.ts";
import { freePort, hasPostgres, type PostgresServer, startPostgres } from "../../support/servers.ts";
import { TempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";

const TTL = 2000;
const exclusive = (name: string) => ({ name, mode: "exclusive" as const });

/** Stores that are closed at the end of the scope. */
class Clients implements AsyncDisposable {
  readonly #open: Store[] = [];
  readonly notices: string[] = [];
  /** Opens the engine alone, where a lock is one session; or a store in which each lock has a second hold. */
  async open(url: string, secondHold = false): Promise<Store> {
    const notice = (message: string) => this.notices.push(message);
    const store = await (secondHold ? openStore : openEngine)(url, { ttl: TTL, notice });
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

describe.if(hasPostgres())("postgres", () => {
  let server: PostgresServer;
  let dir: TempDir;
  beforeAll(async () => {
    dir = new TempDir();
    server = await startPostgres({ args: ["-c", "log_statement=all", "-c", "log_line_prefix=[%p] "] });
    await using clients = new Clients();
    await (await (await clients.open(server.url)).tryAcquire(exclusive("first")))!.release(); // waits for one lease, so that no test does
  }, 60_000);
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
    dir[Symbol.dispose]();
  });

  const sessions = async (name: string) =>
    (await server.admin(`SELECT pid FROM pg_stat_activity WHERE application_name = 'exclusive ${name}'`)).map(
      ({ pid }) => pid as number,
    );

  test("an administrator ends the session: the lock is lost at once, with the reason", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const lease = (await store.tryAcquire(exclusive("ended")))!;
    const lost = new Promise<unknown>((resolve) => {
      lease.lost!.addEventListener("abort", () => resolve(lease.lost!.reason));
    });
    const [pid] = await sessions("ended");
    await server.admin(`SELECT pg_terminate_backend(${pid})`);
    const reason = await lost;
    expect(reason).toBeInstanceOf(LockLost);
    expect((reason as Error).message).toContain("terminating connection due to administrator command");
    expect((reason as Error).message).not.toContain("secret");
    await lease.release();
    expect((await store.status("ended")).state).toBe("free");
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
    await until(async () => (await sessions("given up")).length === 1, "the waiters' sessions to end");
    expect((await store.status("given up")).waiters).toBe(0);
    await first.release();
    await until(async () => (await sessions("given up")).length === 0, "the holder's session to end");
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
      await until(async () => (await store.status("race")).state === "free", "the lock to be free");
    }
  });

  test("a role's default settings end neither a wait nor a lock", async () => {
    await server.admin(`
      CREATE ROLE hasty LOGIN PASSWORD 'secret';
      ALTER ROLE hasty SET statement_timeout = '200ms';
      ALTER ROLE hasty SET lock_timeout = '200ms';
      ALTER ROLE hasty SET idle_session_timeout = '300ms';
      ALTER ROLE hasty SET default_transaction_read_only = on;
      ALTER ROLE hasty SET synchronous_commit = off`);
    await using clients = new Clients();
    const store = await clients.open(server.url.replace("app:secret%2Fword", "hasty:secret"));
    const first = (await store.tryAcquire(exclusive("hasty")))!;
    const waiting = store.waitAcquire(exclusive("hasty"));
    await Bun.sleep(1000); // longer than each timeout
    expect(first.lost!.aborted).toBe(false);
    await first.release();
    await (await waiting).release();
  });

  test("a waiter sends less than two statements a second while it waits", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const first = (await store.tryAcquire(exclusive("asks")))!;
    const waiter = await clients.open(server.url);
    const waiting = waiter.waitAcquire({ ...exclusive("asks"), label: "patient" });
    const queued = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    let pid: unknown;
    await until(async () => {
      pid = (await server.admin(queued))[0]?.pid;
      return pid !== undefined;
    }, "a waiter");
    const statements = () => server.log.split("\n").filter((line) => line.startsWith(`[${pid}] LOG:`)).length;
    await until(() => statements() > 0, "the server to write its log");
    const before = statements();
    await Bun.sleep(2 * TTL); // time for six renewals of the holder
    expect(statements() - before).toBeLessThan(2 * 2 * (TTL / 1000)); // each holds no snapshot for longer than a slice
    await first.release();
    await (await waiting).release();
  });

  test("any name and label come back unchanged, and are never run as SQL", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const names = ["*/ SELECT 1/0; /*", "a'b\"c\\d", "line\nline\0next?", "ünï 中 🔒", "\ud800", "$1 $$ %s"];
    for (const name of names) {
      const lease = (await store.tryAcquire({ ...exclusive(name), label: `*/;${name}` }))!;
      const { holder } = await store.status(name);
      expect(holder?.label).toBe(`*/;${name}`);
      expect((await store.list()).map((lock) => lock.name)).toEqual([name]);
      await lease.release();
    }
  });

  test("a name too long to be shown is still one lock, and is listed truncated", async () => {
    await using clients = new Clients();
    const store = await clients.open(server.url);
    const name = "long ".repeat(1000);
    const lease = (await store.tryAcquire(exclusive(name)))!;
    expect(await store.tryAcquire(exclusive(name))).toBeUndefined();
    expect((await store.status(name)).holder).toMatchObject({ pid: process.pid });
    const [listed] = await store.list();
    expect(listed!.name).toStartWith("long long ");
    expect(listed!.holder).toMatchObject({ pid: process.pid });
    await lease.release();
  });

  test("a role that may not see other sessions' activity still sees that the lock is held, and its name", async () => {
    await server.admin("CREATE ROLE stranger LOGIN PASSWORD 'secret'");
    await using clients = new Clients();
    const lease = (await (await clients.open(server.url)).tryAcquire(exclusive("seen")))!;
    const stranger = await clients.open(server.url.replace("app:secret%2Fword", "stranger:secret"));
    expect(await stranger.tryAcquire(exclusive("seen"))).toBeUndefined();
    expect(await stranger.status("seen")).toMatchObject({ state: "held", holder: {} });
    expect((await stranger.list()).map(({ name }) => name)).toEqual(["seen"]);
    await lease.release();
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

  test("a wrong password, a missing database, a closed port: a clear error without secrets", async () => {
    await using clients = new Clients();
    const bad = {
      "password authentication failed": server.url.replace("secret%2Fword", "hunter2"),
      'database "nothing" does not exist': server.url.replace("/postgres", "/nothing"),
      "connection refused": `postgres://app:secret%2Fword@127.0.0.1:${freePort()}/postgres`,
    };
    for (const [message, url] of Object.entries(bad)) {
      const error = await errorOf((await clients.open(url)).tryAcquire(exclusive("x")));
      expect(error).toBeInstanceOf(StoreError);
      expect(error.message).toContain(message);
      expect(error.message).toContain("postgres://app@127.0.0.1");
      expect(error.message).not.toMatch(/hunter2|secret/);
    }
  });

  test.if(required("openssl", "openssl"))("TLS, with the server's certificate checked", async () => {
    const { cert, key } = await certificate(dir);
    const tls = await server.enableTls(cert, key);
    await using clients = new Clients();
    const store = await clients.open(`${server.url}?sslmode=verify-full&sslrootcert=${cert}`);
    const lease = (await store.tryAcquire(exclusive("tls")))!;
    expect(tls.used("exclusive tls")).resolves.toBe(true);
    const waiting = store.waitAcquire(exclusive("tls"), AbortSignal.timeout(200)); // the cancel request uses TLS too
    expect((await errorOf(waiting)).name).toBe("TimeoutError");
    await lease.release();
    const other = await clients.open(`${server.url}?sslmode=verify-full`);
    expect((await errorOf(other.tryAcquire(exclusive("tls")))).message).toMatch(/certificate|self.signed/i);
  });

  describe.if(required("/usr/sbin/pgbouncer", "pgbouncer"))("behind pgbouncer in transaction mode", () => {
    for (const ignored of ["", "ignore_startup_parameters = exclusive.session"]) {
      test(
        ignored === "" ? "default settings: refused" : "ignoring unknown parameters: refused",
        async () => {
          const port = freePort();
          const file = dir.file(`pgbouncer-${port}.ini`);
          writeFileSync(
            file,
            `[databases]
* = host=127.0.0.1 port=${server.port} user=app password='secret/word'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
${ignored}
`,
          );
          await command(["chmod", "-R", "a+rX", dir.path]);
          const user = process.getuid?.() === 0 ? ["-u", "postgres"] : [];
          await using pooler = new Process(["/usr/sbin/pgbouncer", ...user, file]);
          await until(
            () => pooler.stderr.includes("listening on"),
            "pgbouncer",
            () => pooler.stderr,
          );
          await using clients = new Clients();
          const store = await clients.open(`postgres://app:secret%2Fword@127.0.0.1:${port}/postgres`);
          for (const attempt of [
            store.tryAcquire(exclusive("pooled")),
            store.waitAcquire(exclusive("pooled")),
          ]) {
            const error = await errorOf(attempt);
            expect(error).toBeInstanceOf(StoreError);
            expect(error.message).toContain("connection pooler");
          }
        },
      );
    }
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

    test("restarted: the next holder waits for one lease; tokens keep growing", async () => {
      await using clients = new Clients();
      const before = (await (await clients.open(server.url)).tryAcquire(exclusive("restart")))!;
      const began = performance.now();
      await server.kill();
      await until(() => before.lost!.aborted, "the loss");
      await server.start();
      const { lease, after } = await acquired(clients, "restart", began);
      expect(after).toBeGreaterThanOrEqual(TTL);
      expect(lease.token!).toBeGreaterThan(before.token!);
      expect(clients.notices.join()).toContain("has just ended sessions");
      await lease.release();
    });

    test("a server process crashes, which ends all sessions but not the server: the same", async () => {
      await using clients = new Clients();
      const store = await clients.open(server.url);
      const before = (await store.tryAcquire(exclusive("crash")))!;
      const victim = (await store.tryAcquire(exclusive("victim")))!;
      const [pid] = await sessions("victim");
      const began = performance.now();
      process.kill(pid!, "SIGKILL");
      await until(() => before.lost!.aborted && victim.lost!.aborted, "the loss");
      const answers = () =>
        server.admin("SELECT 1").then(
          () => true,
          () => false,
        );
      await until(answers, "the server to have recovered");
      const { lease, after } = await acquired(clients, "crash", began);
      expect(after).toBeGreaterThanOrEqual(TTL);
      expect(lease.token!).toBeGreaterThan(before.token!);
      await lease.release();
    });

    test("both holds of a lock ended at once by an administrator: a waiter waits for one lease", async () => {
      await using clients = new Clients();
      const holder = await clients.open(server.url, true);
      const lease = (await holder.tryAcquire(exclusive("both")))!;
      const waiting = (await clients.open(server.url, true)).waitAcquire(exclusive("both"));
      await until(async () => (await holder.status("both")).waiters === 1, "a waiter");
      const began = performance.now();
      const held = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted";
      await server.admin(`SELECT pg_terminate_backend(pid) FROM (${held}) AS held`);
      const next = await waiting;
      expect(performance.now() - began).toBeGreaterThanOrEqual(TTL);
      expect(next.token!).toBeGreaterThan(lease.token!);
      await next.release();
    });

    test("a killed holder's lock is free at once", async () => {
      await using clients = new Clients();
      const store = await clients.open(server.url);
      const remote = join(root, "src/store/open-store.ts");
      const take = `const store = await (await import(${JSON.stringify(remote)})).openStore(${JSON.stringify(server.url)}, { ttl: ${TTL} });
        await store.tryAcquire({ name: "killed", mode: "exclusive" }); console.log("held"); setInterval(() => {}, 1000);`;
      await using holder = new Process([process.execPath, "-e", take]);
      await holder.says("held");
      const waiting = store.waitAcquire(exclusive("killed"));
      await until(async () => (await store.status("killed")).waiters === 1, "a waiter");
      holder.kill("SIGKILL");
      await (await waiting).release();
      expect(clients.notices).toEqual([]); // a wait for the lease would have been announced
    });

    test("a waiter whose session is ended reconnects, and assumes that the holder's session was ended too", async () => {
      await using clients = new Clients();
      const store = await clients.open(server.url);
      const lease = (await store.tryAcquire(exclusive("purge")))!;
      const waiting = store.waitAcquire(exclusive("purge"));
      await until(async () => (await store.status("purge")).waiters === 1, "a waiter");
      const began = performance.now();
      // The waiter's session first, or it would get the lock in between.
      const all = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' ORDER BY granted";
      await server.admin(`SELECT pg_terminate_backend(pid) FROM (${all}) AS all_of_them`);
      const next = await waiting;
      expect(performance.now() - began).toBeGreaterThanOrEqual(TTL);
      expect(lease.lost!.aborted).toBe(true);
      await next.release();
    });
  });
});
