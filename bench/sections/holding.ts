/** The memory and processor time of a held lock. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { figure, round } from "../figures.ts";
import { type Bench, binary, here, Talker, until } from "../setup.ts";

export async function holding(bench: Bench): Promise<void> {
  const dir = bench.directory();
  const target = (what: string, value: number, limit: number) =>
    bench.targets.push({ section: "holding", what, value: round(value), limit });
  const run = (...args: string[]) =>
    Bun.spawn([binary, "run", "-q", "--dir", dir, ...args], { stdin: "ignore" });

  const wrapped: number[] = [];
  const own: number[] = [];
  for (let i = 0; i < 5; i++) {
    const wrapper = run("wrapped", "sleep", "60");
    await until(() => childOf(wrapper.pid) !== undefined, "the command");
    await Bun.sleep(200);
    const { rss, private: alone } = memory(wrapper.pid);
    wrapped.push(rss);
    own.push(alone);
    process.kill(childOf(wrapper.pid)!);
    await wrapper.exited;
  }
  bench.figures.push(figure("holding", "exclusive run: resident", "MiB", wrapped));
  bench.figures.push(figure("holding", "exclusive run: of it not shared with other runs", "MiB", own));
  target("a wrapped command, MiB", bench.figures.at(-2)!.median, 35);

  const become = run("--exec", "become", "sleep", "600");
  await until(() => readlinkSync(`/proc/${become.pid}/exe`) !== binary, "the command");
  await Bun.sleep(200);
  target("--exec: wrapper processes left", readlinkSync(`/proc/${become.pid}/exe`) === binary ? 1 : 0, 0);
  bench.figures.push(
    figure("holding", "exclusive run --exec: resident (it is sleep)", "MiB", [memory(become.pid).rss]),
  );

  const waiter = run("--wait", "become", "true");
  const seconds = bench.quick ? 5 : 60;
  await Bun.sleep(1000);
  const before = nanoseconds(waiter.pid);
  await Bun.sleep(seconds * 1000);
  const share = ((nanoseconds(waiter.pid) - before) / (seconds * 1e9)) * 100;
  bench.figures.push(figure("holding", `a waiter: processor over ${seconds} s`, "%", [share]));
  target("a waiter, % of a processor", share, 0.1);
  bench.figures.push(figure("holding", "a waiter: resident", "MiB", [memory(waiter.pid).rss]));
  become.kill();
  await Promise.all([become.exited, waiter.exited]);

  await using without = new Talker([process.execPath, `${here}/many.ts`, dir, "0"]);
  await using one = new Talker([process.execPath, `${here}/many.ts`, dir, "1"]);
  await Promise.all([without.hear("held"), one.hear("held")]);
  const cost = Math.max(0, memory(one.pid).private - memory(without.pid).private);
  bench.figures.push(figure("holding", "library: a script with a lock, more than without", "MiB", [cost]));
}

/** Resident memory of a process, and the part that no other process shares, in MiB. */
function memory(pid: number): { rss: number; private: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const of = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)![1]) / 1024;
  return { rss: of("Rss"), private: of("Private_Clean") + of("Private_Dirty") };
}

const childOf = (pid: number): number | undefined =>
  Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ")[0]) || undefined;

/** The processor time of all threads so far. */
function nanoseconds(pid: number): number {
  let sum = 0;
  for (const task of readdirSync(`/proc/${pid}/task`))
    sum += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]);
  return sum;
}
