/** From a release to the first action of the next holder. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { clock } from "../../src/os/clock.ts";
import { figure } from "../figures.ts";
import { type Bench, binary, has, here, Talker, until } from "../setup.ts";

export async function handover(bench: Bench): Promise<void> {
  const note = (name: string, samples: number[]) =>
    bench.figures.push(figure("handover", name, "ms", samples));
  const rounds = bench.quick ? 20 : 100;
  const clean = await pingPong(bench, "exclusive", rounds);
  note("library, clean", clean);
  const killed = await afterKill(bench, bench.quick ? 5 : 25);
  note("library, after SIGKILL", killed);
  if (existsSync(`${here}/node_modules/proper-lockfile`))
    note(
      "proper-lockfile, retries each 10 ms, clean",
      await pingPong(bench, "proper-lockfile", Math.min(rounds, 40)),
    );
  const middle = (name: string) => bench.figures.find((f) => f.name === name)!.median;
  for (const name of ["library, clean", "library, after SIGKILL"])
    bench.targets.push({
      section: "handover",
      what: `${name}, one waiter, ms`,
      value: middle(name),
      limit: 1.5,
    });
  if (!has("flock")) return bench.skip("flock: not installed (Debian: util-linux)");
  for (const count of [1, 10, 50]) {
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let i = 0; i < (bench.quick ? 1 : count === 50 ? 3 : 7); i++) {
      theirs.push(await drain(bench, count, (dir, argv) => ["flock", `${dir}/q`, ...argv]));
      ours.push(
        await drain(bench, count, (dir, argv) => [binary, "run", "--wait", "-q", "--dir", dir, "q", ...argv]),
      );
    }
    const [one, other] = [
      `flock, ${count} waiting: all had it`,
      `exclusive run --wait, ${count} waiting: all had it`,
    ];
    note(one, theirs);
    note(other, ours);
    if (count === 50) {
      const limit = Math.round(middle(one) * 1.5 + 50);
      bench.targets.push({
        section: "handover",
        what: "the queue of 50 drains, ms",
        value: middle(other),
        limit,
      });
    }
  }
}

/** Does this process wait in flock(2)? */
const blocked = (pid: number) =>
  (readFileSync("/proc/locks", "utf8").match(new RegExp(`-> FLOCK .* ${pid} `, "g")) ?? []).length > 0;

/** Two processes hand the lock to each other. */
async function pingPong(bench: Bench, library: string, rounds: number): Promise<number[]> {
  const dir = bench.directory();
  const argv = [process.execPath, `${here}/holder.ts`, library, dir];
  await using one = new Talker(argv);
  await one.hear("has");
  await using two = new Talker(argv);
  let [holder, waiter] = [one, two];
  const samples: number[] = [];
  for (let i = 0; i < rounds + 2; i++) {
    await waiter.hear("wants");
    if (library === "exclusive") await until(() => blocked(waiter.pid), "the waiter");
    else await Bun.sleep(30 + Math.random() * 10); // it polls: any moment between two attempts
    holder.say("go");
    const left = await holder.hear("leaves");
    const had = await waiter.hear("has");
    if (i >= 2) samples.push(Number(had) - Number(left));
    holder.say("again");
    [holder, waiter] = [waiter, holder];
  }
  return samples;
}

/** The time from the kill of the holder until the waiter has the lock. */
async function afterKill(bench: Bench, rounds: number): Promise<number[]> {
  const dir = bench.directory();
  const argv = [process.execPath, `${here}/holder.ts`, "exclusive", dir];
  const samples: number[] = [];
  let holder = new Talker(argv);
  await holder.hear("has");
  for (let i = 0; i < rounds; i++) {
    const waiter = new Talker(argv);
    await waiter.hear("wants");
    await until(() => blocked(waiter.pid), "the waiter");
    const begun = clock();
    holder.kill();
    samples.push(Number(await waiter.hear("has")) - begun);
    await holder[Symbol.asyncDispose]();
    holder = waiter;
  }
  await holder[Symbol.asyncDispose]();
  return samples;
}

/** The time from the end of the holder's command until the last of `count` waiting commands begins. */
async function drain(
  bench: Bench,
  count: number,
  wrapped: (dir: string, argv: string[]) => string[],
): Promise<number> {
  const dir = bench.directory();
  const stamp = bench.built("stamp");
  const holder = Bun.spawn(wrapped(dir, [stamp, `${dir}/end`, "wait"]), { stdin: "pipe" });
  const lockfile = () => [`${dir}/q`, `${dir}/exclusive_q.lock`].find(existsSync);
  await until(() => lockfile() !== undefined && holdersAndWaiters(lockfile()!) > 0, "the holder");
  const waiters = Array.from({ length: count }, () => Bun.spawn(wrapped(dir, [stamp, `${dir}/begin`])));
  await until(() => holdersAndWaiters(lockfile()!) > count, "the queue");
  holder.stdin.end();
  await Promise.all([holder, ...waiters].map(({ exited }) => exited));
  const ended = readFileSync(`${dir}/end`, "utf8").trim();
  const last = readFileSync(`${dir}/begin`, "utf8").trim().split("\n").at(-1)!;
  return Number(BigInt(last) - BigInt(ended)) / 1e6;
}

/** The number of holders and waiters of a lock file, proc_locks(5). */
function holdersAndWaiters(path: string): number {
  const { ino } = statSync(path);
  return readFileSync("/proc/locks", "utf8")
    .split("\n")
    .filter((line) => line.includes(`:${ino} `)).length;
}
