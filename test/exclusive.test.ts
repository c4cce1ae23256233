import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { CannotAcquireLock, exclusive, Lock } from "../src/index.ts";
import { startScript } from "./support/process.ts";
import { TempDir } from "./support/temp-dir.ts";

/** Is the lock free? */
const isFree = (dir: TempDir, name: string): boolean => {
  try {
    new Lock({ name, dir: dir.path }).acquireSync().releaseSync();
    return true;
  } catch (error) {
    if (error instanceof CannotAcquireLock) return false;
    throw error;
  }
};

describe("as a wrapper", () => {
  test("a function runs under the lock; this, arguments, result, name and length are kept", () => {
    using dir = new TempDir();
    const add = exclusive(
      { name: "t", dir: dir.path },
      function add(this: { base: number }, a: number, b: number) {
        expect(isFree(dir, "t")).toBe(false);
        return this.base + a + b;
      },
    );
    expect(add.call({ base: 100 }, 20, 3)).toBe(123);
    expect(add.name).toBe("add");
    expect(add.length).toBe(2);
    expect(dir.list()).toEqual([]);
  });

  test("an error that the function throws passes through, and the lock is released", () => {
    using dir = new TempDir();
    const error = new Error("inside");
    const fail = exclusive({ name: "t", dir: dir.path }, () => {
      throw error;
    });
    let caught: unknown;
    try {
      fail();
    } catch (thrown) {
      caught = thrown;
    }
    expect(caught).toBe(error);
    expect(dir.list()).toEqual([]);
  });

  test("an async function holds the lock until its promise is settled, either way", async () => {
    using dir = new TempDir();
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const work = exclusive({ name: "t", dir: dir.path }, async (text: string) => text + (await promise));
    const first = work("a");
    const second = await work("b").catch((error: unknown) => error);
    expect(second).toBeInstanceOf(CannotAcquireLock);
    expect(isFree(dir, "t")).toBe(false);
    resolve("!");
    expect(await first).toBe("a!");
    expect(dir.list()).toEqual([]);
    const error = new Error("inside");
    const fail = exclusive({ name: "t", dir: dir.path }, async () => {
      throw error;
    });
    expect(await fail().catch((thrown: unknown) => thrown)).toBe(error);
    expect(dir.list()).toEqual([]);
    reject();
  });

  test("a function that returns a promise, or anything with then(), holds the lock as long", async () => {
    using dir = new TempDir();
    const promised = exclusive({ name: "t", dir: dir.path }, () =>
      Bun.sleep(10).then(() => isFree(dir, "t")),
    );
    const running = promised();
    expect(isFree(dir, "t")).toBe(false);
    expect(await running).toBe(false);
    expect(dir.list()).toEqual([]);
    const thenable = exclusive({ name: "t", dir: dir.path }, (): PromiseLike<boolean> => {
      const query = {
        // biome-ignore lint/suspicious/noThenProperty: like a query builder, which begins when it is awaited
        then: (done: (value: boolean) => void) => setTimeout(() => done(isFree(dir, "t")), 5),
      };
      return query as unknown as PromiseLike<boolean>;
    });
    expect(await thenable()).toBe(false);
    expect(dir.list()).toEqual([]);
  });

  test("with wait or timeout an async function waits for the lock; a sync one cannot", async () => {
    using dir = new TempDir();
    const order: string[] = [];
    const options = { name: "t", dir: dir.path, timeout: "60s" };
    const work = exclusive(options, async (id: string) => {
      order.push(`${id} begins`);
      await Bun.sleep(20);
      order.push(`${id} ends`);
    });
    await Promise.all([work("a"), work("b")]);
    expect(order[1]![0]).toBe(order[0]![0]!);
    expect(order).toHaveLength(4);
    for (const waiting of [
      { wait: true },
      { timeout: 5 },
      { coalesce: true },
      { signal: AbortSignal.abort() },
    ])
      expect(() => exclusive({ name: "t", ...waiting }, () => {})).toThrow("must be async");
    expect(dir.list()).toEqual([]);
  });

  test("coalesce: of several waiting calls one runs", async () => {
    using dir = new TempDir();
    const begin = Promise.withResolvers<void>();
    let runs = 0;
    const work = exclusive({ name: "t", dir: dir.path, wait: true, coalesce: true }, async () => {
      runs++;
      await begin.promise;
    });
    const first = work();
    const others = [work(), work(), work()].map((run) =>
      run.then(
        () => "ran",
        () => "left",
      ),
    );
    expect(await Promise.race([...others, Bun.sleep(100)])).toBeUndefined(); // no run has begun that is theirs
    begin.resolve();
    await first;
    expect((await Promise.all(others)).sort()).toEqual(["left", "left", "ran"]);
    expect(runs).toBe(2);
    expect(dir.list()).toEqual([]);
  });

  test("a call inside of a call of the same lock is refused, also if it would wait; beside it, it waits", async () => {
    using dir = new TempDir();
    const options = { name: "t", dir: dir.path, wait: true };
    const inner = exclusive(options, async () => "ran");
    const outer = exclusive(options, async () => {
      await Bun.sleep(1);
      return inner().catch((error: Error) => error.message);
    });
    const all = await Promise.all([outer(), inner(), outer()]);
    const refused = `'t' is already locked by this process (pid ${process.pid})`;
    expect(all).toEqual([refused, "ran", refused]);
    const object = exclusive(options, async () =>
      new Lock(options).acquire({ wait: true }).catch((error: Error) => error.message),
    );
    expect(await object()).toBe(refused);
  });

  test("the default name is the path of the file", () => {
    const name = exclusive(() => {
      throw new Error("not called");
    });
    expect(name).toThrow("not called");
    using dir = new TempDir();
    exclusive({ dir: dir.path }, () => {
      expect(existsSync(new Lock({ name: import.meta.path, dir: dir.path }).lockfile)).toBe(true);
    })();
  });

  test("an argument that cannot be wrapped is refused at once", () => {
    expect(() => exclusive({ name: "t" }, function* () {})).toThrow("generator");
    expect(() => exclusive({ name: "t" }, async function* () {})).toThrow("generator");
    // @ts-expect-error not a function
    expect(() => exclusive({ name: "t" }, "text")).toThrow(TypeError);
  });
});

describe("as a decorator", () => {
  test("methods: sync, async, static, private, with a name and without one", async () => {
    using dir = new TempDir();
    const before = process.env.EXCLUSIVE_DIR;
    process.env.EXCLUSIVE_DIR = dir.path;
    try {
      class Jobs {
        #base = 10;
        @exclusive({ name: "report" }) report(n: number) {
          expect(isFree(dir, "report")).toBe(false);
          return this.#base + n;
        }
        @exclusive bare() {
          expect(isFree(dir, import.meta.path)).toBe(false);
          return this;
        }
        @exclusive({ name: "sync" }) async sync(text: string) {
          await Bun.sleep(5);
          expect(isFree(dir, "sync")).toBe(false);
          return text + this.#base;
        }
        @exclusive({ name: "fail" }) async fail() {
          throw new Error("inside");
        }
        @exclusive({ name: "static" }) static make() {
          return new this();
        }
        @exclusive({ name: "private" }) #secret() {
          return isFree(dir, "private");
        }
        secret() {
          return this.#secret();
        }
      }
      const jobs = Jobs.make();
      expect(jobs.report(5)).toBe(15);
      expect(jobs.bare()).toBe(jobs);
      expect(await jobs.sync("x")).toBe("x10");
      await expect(jobs.fail()).rejects.toThrow("inside");
      expect(jobs.secret()).toBe(false);
      expect(jobs.report.name).toBe("report");
      expect(dir.list()).toEqual([]);
    } finally {
      process.env.EXCLUSIVE_DIR = before;
      if (before === undefined) delete process.env.EXCLUSIVE_DIR;
    }
  });

  test("across processes: the second call is refused", async () => {
    using dir = new TempDir();
    const code = `class Jobs { @exclusive({ name: "y" }) async work() { console.log("at it"); await Bun.sleep(60_000); } }
      await new Jobs().work().catch((error) => { console.log(error instanceof CannotAcquireLock, error.holder.pid); });`;
    await using first = startScript(code, dir);
    await first.says("at it");
    expect(await startScript(code, dir).result).toMatchObject({ stdout: `true ${first.pid}\n` });
  });

  test.each(["class", "getter", "setter", "field", "accessor"])("a %s is refused by its kind", (kind) => {
    const decorate = exclusive({ name: "t" }) as (...args: unknown[]) => unknown;
    expect(() => decorate(class {}, { kind })).toThrow(`exclusive() decorates methods, not a ${kind}`);
    expect(() => decorate(undefined, { kind })).toThrow(`exclusive() decorates methods, not a ${kind}`);
  });

  test("legacy decorators, and anything but a method, are refused with advice", () => {
    class Plain {
      work() {}
    }
    const old = exclusive({ name: "t" }) as unknown as (...args: unknown[]) => unknown;
    const bare = exclusive as unknown as (...args: unknown[]) => unknown;
    expect(() => old(Plain.prototype, "work", {})).toThrow("experimentalDecorators");
    expect(() => old(Plain, "work", {})).toThrow("experimentalDecorators");
    expect(() => bare(Plain.prototype, "work", {})).toThrow("experimentalDecorators");
    expect(() => bare(Plain, "work", {})).toThrow("experimentalDecorators");
    expect(() => old(Plain, { kind: "class" })).toThrow("decorates methods");
  });
});
