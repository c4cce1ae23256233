/** `run --if-held latest`: at most one waits, and it is the newest. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { describeEngines, TTL } from "../support/engines.ts";
import { waiters } from "../support/proc.ts";
import { exclusive, hold, type Process, type StartOptions, start, startScript } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(120_000);

/** The runs of one lock: each writes its number to a file. */
class Deploys {
  readonly #dir = new TempDir();
  /** @param options of each run, as `--ttl` */
  constructor(
    private readonly where: StartOptions,
    private readonly options: string[] = [],
  ) {}

  /** Starts a run with this number. The first one goes on until `finish`. */
  start(number: number): Process {
    const job = `echo ${number} >>${this.#dir.file("ran")}; while [ ${number} = 1 -a ! -e ${this.#dir.file("go")} ]; do sleep 0.02; done`;
    const options = ["-v", "--if-held", "latest", ...this.options];
    return start(["run", ...options, "deploy", "--", "sh", "-c", job], this.where);
  }
  finish(): void {
    writeFileSync(this.#dir.file("go"), "");
  }
  /** The numbers of the runs so far. */
  get ran(): number[] {
    const file = this.#dir.file("ran");
    return existsSync(file) ? readFileSync(file, "utf8").trim().split("\n").map(Number) : [];
  }
  [Symbol.dispose](): void {
    this.#dir[Symbol.dispose]();
  }
}

const isSuperseded = (run: Process): boolean => run.stderr.includes("a newer run waits in place of this one");

const waits = (run: Process, which: string) =>
  until(
    () => run.stderr.includes("waiting for"),
    `${which} to wait`,
    () => run.stderr,
  );

/** Starts the first run and waits until it has begun; then those from 2 to `count`, each followed by `next`. */
async function startAll(
  deploys: Deploys,
  count: number,
  next: (run: Process, number: number) => Promise<void>,
): Promise<{ first: Process; others: Process[] }> {
  const first = deploys.start(1);
  await until(
    () => deploys.ran.length === 1,
    "the first run",
    () => first.stderr,
  );
  const others: Process[] = [];
  for (let number = 2; number <= count; number++) {
    const run = deploys.start(number);
    others.push(run);
    await next(run, number);
  }
  return { first, others };
}

/** One holder, and others that are started one after the other. */
async function inARow(deploys: Deploys, count: number): Promise<void> {
  const { first, others } = await startAll(deploys, count, (run, number) => waits(run, `run ${number}`));
  const older = others.slice(0, -1);
  await until(() => older.every(isSuperseded), "all but the newest one to give up");
  for (const { result } of older) expect(await result).toMatchObject({ status: 0, stdout: "" });
  deploys.finish();
  for (const run of [first, others.at(-1)!])
    expect({ ...(await run.result), stderr: "" }).toEqual({
      status: 0,
      signal: null,
      stdout: "",
      stderr: "",
    });
  expect(deploys.ran).toEqual([1, count]);
}

test("one runs and 29 are started after it, one after the other: the first and the last run, all others exit 0", async () => {
  using dir = new TempDir();
  using deploys = new Deploys({ dir });
  await inARow(deploys, 30);
  expect(dir.list()).toEqual([]);
});

test("29 are started at once: the one that was started last runs, and no older one after it", async () => {
  using dir = new TempDir();
  using deploys = new Deploys({ dir });
  const first = deploys.start(1);
  await until(() => deploys.ran.length === 1, "the first run");
  const others = Array.from({ length: 29 }, (_, i) => deploys.start(i + 2));
  await until(() => others.slice(0, -1).every(isSuperseded), "all but the newest one to give up");
  deploys.finish();
  for (const { result } of [first, ...others]) expect(await result).toMatchObject({ status: 0 });
  expect(deploys.ran).toEqual([1, 30]);
  expect(dir.list()).toEqual([]);
});

/**
 * Starts runs and kills some of those that wait. The newest one that is not killed must run, after all others.
 * @param isStore the server orders them as it sees them, so each one waits before the next is started
 */
async function underKills(deploys: Deploys, count: number, isStore = false): Promise<void> {
  const { first, others } = await startAll(deploys, count, async (run, number) => {
    if (isStore || Math.random() < 0.5) await waits(run, `run ${number}`);
    if (number < count && Math.random() < 0.5) run.kill("SIGKILL");
  });
  // The newest one has asked for the lock: no older one may run after it.
  await waits(others.at(-1)!, "the newest one");
  deploys.finish();
  expect(await first.result).toMatchObject({ status: 0 });
  const results = await Promise.all(others.map(({ result }) => result));
  for (const { status, signal } of results) expect(signal === "SIGKILL" || status === 0).toBe(true);
  expect(deploys.ran[0]).toBe(1);
  expect(deploys.ran.at(-1)).toBe(count);
}

test("the same where waiters are killed: the newest one runs, and none after it", async () => {
  for (let round = 0; round < 3; round++) {
    using dir = new TempDir();
    using deploys = new Deploys({ dir });
    await underKills(deploys, 12);
    expect(dir.list()).toEqual([]);
  }
});

test("the newest one is killed: one that still waits runs, and nobody who came later is kept out", async () => {
  using dir = new TempDir();
  using deploys = new Deploys({ dir });
  deploys.start(1);
  await until(() => deploys.ran.length === 1, "the first run");
  const killed = deploys.start(2);
  await waits(killed, "a run");
  killed.kill("SIGKILL");
  await killed.result;
  const next = deploys.start(3);
  await waits(next, "the next one");
  deploys.finish();
  expect(await next.result).toMatchObject({ status: 0 });
  expect(deploys.ran).toEqual([1, 3]);
  expect(dir.list()).toEqual([]);
});

test("without -v it says nothing; the log file has 'superseded'; with a time limit it is 75", async () => {
  using dir = new TempDir();
  await using _holder = await hold(dir, "t");
  const log = dir.file("log");
  const job = ["run", "--if-held", "latest", "--log-file", log];
  await using older = start([...job, "t", "--", "true"], { dir });
  await until(() => waiters(dir.lockfile("t")) === 1, "a waiter");
  const late = await exclusive([...job, "-t", "1", "t", "--", "true"], { dir });
  expect(late.status).toBe(75);
  expect(await older.result).toEqual({ status: 0, signal: null, stdout: "", stderr: "" });
  const events = readFileSync(log, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(events.map(({ event }) => event)).toContain("superseded");
  expect(events.find(({ event }) => event === "superseded")).toMatchObject({ name: "t", pid: older.pid });
});

test("with --slots, and with --exec: a waiter that is superseded exits 0, and no file stays", async () => {
  using dir = new TempDir();
  await using _one = await hold(dir, "t", "--slots", "1");
  const job = ["run", "-v", "--if-held", "latest", "--slots", "1"];
  await using older = start([...job, "--exec", "t", "--", "echo", "older"], { dir });
  await waits(older, "a run");
  await using newer = start([...job, "--exec", "t", "--", "echo", "newer"], { dir });
  expect(await older.result).toMatchObject({ status: 0, stdout: "" });
  _one.kill();
  expect(await newer.result).toMatchObject({ status: 0, stdout: "newer\n" });
  expect(dir.list().filter((file) => file.includes("latest"))).toEqual([]);
});

test("in the library: an older call is rejected with Superseded", async () => {
  using dir = new TempDir();
  const code = `
    const held = new Lock({ name: "t" }).acquireSync();
    const call = (n) => new Lock({ name: "t" }).acquire({ latest: true, timeout: "20s" }).then(
      (lock) => (lock.releaseSync(), \`ran \${n}\`), (error) => \`\${error.name} \${n}\`);
    const first = call(1);
    await Bun.sleep(20);
    const second = call(2);
    console.log(await first);
    held.releaseSync();
    console.log(await second);`;
  const { stdout, stderr } = await startScript(code, dir).result;
  expect({ stdout, stderr }).toEqual({ stdout: "Superseded 1\nran 2\n", stderr: "" });
  expect(dir.list()).toEqual([]);
});

describeEngines("latest", (_engine, env) => {
  const deploys = () => new Deploys({ env: env() }, ["--ttl", TTL]);

  test("one runs and others are started after it: the first and the last run, all others exit 0", async () => {
    using all = deploys();
    await inARow(all, 6);
  });

  test("the same where waiters are killed: the newest one runs, and none after it", async () => {
    using all = deploys();
    await underKills(all, 6, true);
  });

  test("a place is no lock: list shows the lock and its holder alone", async () => {
    await using _holder = await hold({ env: env() }, "t", "--ttl", TTL);
    await using waiting = start(["run", "-v", "--ttl", TTL, "--if-held", "latest", "t", "--", "true"], {
      env: env(),
    });
    await waits(waiting, "a run");
    const { stdout } = await exclusive(["list", "--json"], { env: env() });
    expect(JSON.parse(stdout).map(({ name }: { name: string }) => name)).toEqual(["t"]);
  });
});
