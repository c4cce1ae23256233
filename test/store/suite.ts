/** What every store promises: one suite that runs unchanged against each of them, with a real server. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { openStore } from "../../src/store/open-store.ts";
import type { Lease, LockStatus, Store } from "../../src/store/store.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(60_000);

/** A store under test. */
export interface Subject extends AsyncDisposable {
  url: string;
}

export interface Features {
  /** Many readers, one writer. */
  shared?: boolean;
  /** Fencing tokens, and leases that can be lost. */
  remote?: boolean;
  /** The length of a lease: the shortest that is safe on a busy machine. */
  ttl?: string;
}

/** Defines the tests. */
export function storeSuite(name: string, open: () => Promise<Subject>, features: Features): void {
  describe(name, () => {
    let subject: Subject;
    const opened: Store[] = [];
    const quiet = () => {};
    const client = async (): Promise<Store> => {
      const store = await openStore(subject.url, { ttl: features.ttl ?? "2s", notice: quiet });
      opened.push(store);
      return store;
    };
    let a: Store;
    let b: Store;
    let count = 0;
    /** A name that no other test uses. */
    const fresh = () => `lock ${count++}`;
    const exclusive = (name: string, label?: string) => ({ name, mode: "exclusive" as const, label });
    const shared = (name: string) => ({ name, mode: "shared" as const });
    const take = async (store: Store, name: string): Promise<Lease> => {
      const lease = await store.tryAcquire(exclusive(name));
      expect(lease).toBeDefined();
      return lease!;
    };

    beforeAll(async () => {
      subject = await open();
      [a, b] = [await client(), await client()];
      // The first lock in a new store waits for one lease: here, so that no test does.
      await (await a.tryAcquire(exclusive("first")))!.release();
    }, 60_000);
    afterAll(async () => {
      for (const store of opened) await store.close();
      await subject[Symbol.asyncDispose]();
    }, 60_000);

    test("one client holds the lock; another is refused until the release", async () => {
      const name = fresh();
      const first = await take(a, name);
      expect(await b.tryAcquire(exclusive(name))).toBeUndefined();
      expect(await a.tryAcquire(exclusive(name))).toBeUndefined();
      await first.release();
      await first.release(); // a second call does nothing
      await (await take(b, name)).release();
    });

    test("each name is a lock of its own", async () => {
      const names = [
        fresh(),
        "a b",
        "a+b",
        "a%20b",
        "ä",
        "a/b",
        "*",
        "[a]",
        "x".repeat(300),
        `${"x".repeat(300)}y`,
      ];
      const leases = await Promise.all(names.map((name) => take(a, name)));
      const held = (await b.list()).filter(({ state }) => state === "held").map(({ name }) => name);
      for (const name of names.filter((name) => name.length < 200)) expect(held).toContain(name);
      for (const lease of leases) await lease.release();
    });

    test("a waiter gets the lock when it is released", async () => {
      const name = fresh();
      const first = await take(a, name);
      let got: Lease | undefined;
      const waiting = b.waitAcquire(exclusive(name)).then((lease) => {
        got = lease;
      });
      await Bun.sleep(100);
      expect(got).toBeUndefined();
      await first.release();
      await waiting;
      expect(await a.tryAcquire(exclusive(name))).toBeUndefined();
      await got!.release();
    });

    test("a waiter that gives up is rejected with the reason of its signal, and holds nothing", async () => {
      const name = fresh();
      const first = await take(a, name);
      const reason = new Error("enough");
      const controller = new AbortController();
      const waiting = b.waitAcquire(exclusive(name), controller.signal);
      setTimeout(() => controller.abort(reason), 100);
      expect(await waiting.catch((error) => error)).toBe(reason);
      await first.release();
      await (await take(a, name)).release();
    });

    test("ten waiters get the lock one at a time, and each of them does", async () => {
      const name = fresh();
      const first = await take(a, name);
      let inside = 0;
      let most = 0;
      const waiters = Array.from({ length: 10 }, async (_, i) => {
        const lease = await (i % 2 ? a : b).waitAcquire(exclusive(name));
        most = Math.max(most, ++inside);
        await Bun.sleep(5);
        inside--;
        await lease.release();
      });
      await Bun.sleep(50);
      await first.release();
      await Promise.all(waiters);
      expect(most).toBe(1);
    });

    test("status and list name the holder", async () => {
      const name = fresh();
      expect((await b.status(name)).state).toBe("free");
      const lease = await a.tryAcquire(exclusive(name, "über label"));
      const seen: LockStatus[] = [await b.status(name), (await b.list()).find((lock) => lock.name === name)!];
      for (const { state, holder, lockfile } of seen) {
        expect(state).toBe("held");
        expect(lockfile).toBe(b.location(name));
        expect(holder).toMatchObject({
          pid: process.pid,
          alive: true,
          label: "über label",
          mode: "exclusive",
        });
        expect(Math.abs(holder!.acquiredAt!.getTime() - Date.now())).toBeLessThan(60_000);
        if (features.remote) expect(holder!.token).toBe(String(lease!.token));
      }
      await lease!.release();
      expect((await b.status(name)).state).toBe("free");
      expect((await b.list()).find((lock) => lock.name === name)?.state ?? "free").toBe("free");
    });

    test.if(features.shared === true)(
      "readers share the lock; a writer waits for the last of them",
      async () => {
        const name = fresh();
        const readers = [await a.tryAcquire(shared(name)), await b.tryAcquire(shared(name))];
        expect(readers.every((lease) => lease !== undefined)).toBe(true);
        expect(await b.tryAcquire(exclusive(name))).toBeUndefined();
        expect((await b.status(name)).holder?.mode).toBe("shared");
        let got: Lease | undefined;
        const writer = a.waitAcquire(exclusive(name)).then((lease) => {
          got = lease;
        });
        await readers[0]!.release();
        await Bun.sleep(100);
        expect(got).toBeUndefined();
        await readers[1]!.release();
        await writer;
        expect(await b.tryAcquire(shared(name))).toBeUndefined();
        await got!.release();
        await (await b.tryAcquire(shared(name)))!.release();
      },
    );

    describe.if(features.remote === true)("with a lease", () => {
      test("a lock is held for longer than a lease, and not lost", async () => {
        const name = fresh();
        const lease = await take(a, name);
        const deadline = (await a.status(name)) && Date.now() + 3 * 2000;
        while (Date.now() < deadline) {
          expect(lease.lost!.aborted).toBe(false);
          expect(await b.tryAcquire(exclusive(name))).toBeUndefined();
          await Bun.sleep(500);
        }
        await lease.release();
      });

      test("tokens only grow, whichever client gets the lock", async () => {
        const name = fresh();
        const tokens: bigint[] = [];
        for (let i = 0; i < 10; i++) {
          const lease = await take(i % 2 ? a : b, name);
          tokens.push(lease.token!);
          await lease.release();
        }
        for (const [i, token] of tokens.slice(1).entries()) expect(token).toBeGreaterThan(tokens[i]!);
      });

      test("a client that closes releases its locks, and a waiter gets them", async () => {
        const name = fresh();
        const gone = await client();
        const lease = await take(gone, name);
        const waiting = b.waitAcquire(exclusive(name));
        await gone.close();
        const next = await waiting;
        expect(next.token!).toBeGreaterThan(lease.token!);
        await next.release();
      });

      test("second holds and queue heads are in no list", async () => {
        const name = fresh();
        const lease = await take(a, name);
        const names = (await b.list()).map((lock) => lock.name);
        expect(names.filter((other) => other.startsWith(name))).toEqual([name]);
        await lease.release();
      });

      test("a lock that is free leaves nothing behind", async () => {
        await until(async () => (await b.list()).length === 0, "an empty list");
      });
    });
  });
}
