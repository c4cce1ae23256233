/** Many lock files in one directory, and many processes. */
import { figure, round } from "../figures.ts";
import { type Bench, binary, command, here, Talker } from "../setup.ts";

const COUNTS = [10, 1000, 10_000];

export async function scale(bench: Bench): Promise<void> {
  const cycles = new Map<number, number[]>();
  for (const count of COUNTS) {
    const dir = bench.directory();
    await using many = new Talker([process.execPath, `${here}/many.ts`, dir, String(count)]);
    await many.hear("held");
    const times: number[] = [];
    for (let i = 0; i < (bench.quick ? 3 : 7); i++) {
      const begun = Bun.nanoseconds();
      command([binary, "list", "--json", "--dir", dir]);
      times.push((Bun.nanoseconds() - begun) / 1e6);
    }
    bench.figures.push(figure("scale", `list of ${count}`, "ms", times));
    const batches = command([
      process.execPath,
      `${here}/cycle.ts`,
      "sync",
      dir,
      bench.quick ? "5" : "15",
      "2000",
    ]);
    cycles.set(
      count,
      batches
        .trim()
        .split("\n")
        .map((line) => Number(line) / 1000),
    );
  }
  for (const [count, samples] of cycles)
    bench.figures.push(figure("scale", `a cycle beside ${count} lock files`, "µs", samples));
  const of = (name: string) => bench.figures.find((f) => f.section === "scale" && f.name === name)!.median;
  const target = (what: string, value: number, limit: number) =>
    bench.targets.push({ section: "scale", what, value: round(value), limit });
  target(
    "a cycle beside 10,000 files, to beside 10",
    of("a cycle beside 10000 lock files") / of("a cycle beside 10 lock files"),
    1.2,
  );
  // Both times contain the start of the program, as a user experiences it.
  target("list of 10,000, to ten times that of 1,000", of("list of 10000") / of("list of 1000") / 10, 1);

  for (const processes of [1, 2, 4, 8]) {
    const dir = bench.directory();
    const size = bench.quick ? 2000 : 5000;
    const samples: number[] = [];
    for (let i = 0; i < (bench.quick ? 1 : 3); i++) samples.push(...(await throughput(dir, processes, size)));
    bench.figures.push(
      figure(
        "scale",
        `${processes} process${processes > 1 ? "es" : ""}, each its own lock: cycles`,
        "/s",
        samples,
      ),
    );
  }
}

/** Cycles per second of all processes together. Each has its own directory, and so its own lock. */
async function throughput(dir: string, processes: number, size: number): Promise<number[]> {
  const all = Array.from({ length: processes }, async (_, i) => {
    const own = `${dir}/${i}`;
    command(["mkdir", "-p", own]);
    const child = Bun.spawn([process.execPath, `${here}/cycle.ts`, "sync", own, "5", String(size)], {
      stdout: "pipe",
    });
    return (await child.stdout.text())
      .trim()
      .split("\n")
      .map((line) => 1e9 / Number(line));
  });
  const rates = await Promise.all(all);
  return rates[0]!.map((_, batch) => rates.reduce((sum, batches) => sum + batches[batch]!, 0));
}
