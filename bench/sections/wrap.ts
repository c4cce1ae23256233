/** Time and peak memory of a whole process that runs `true`. */
import { figure, round } from "../figures.ts";
import { type Bench, binary, command, has } from "../setup.ts";

/** Runs these in turn, A B C A B C, and records their times and their memory. The first is the floor. */
export function compare(
  bench: Bench,
  section: string,
  commands: [name: string, argv: string[], status?: number][],
  runs: number,
): void {
  const argv = commands.flatMap(([, words], i) => (i === 0 ? words : ["--and", ...words]));
  const samples = commands.map(() => ({ wall: [] as number[], memory: [] as number[] }));
  const warmUps = 2;
  const seen = commands.map(() => 0);
  for (const line of command([bench.built("measure"), String(runs + warmUps), ...argv])
    .trim()
    .split("\n")) {
    const [index = 0, status, wall = 0, , , memory = 0] = line.split(" ").map(Number);
    const [, words, expected = 0] = commands[index]!;
    if (status !== expected) throw new Error(`${words.join(" ")} ended with ${status}`);
    if (seen[index]!++ < warmUps) continue;
    samples[index]!.wall.push(wall / 1000);
    samples[index]!.memory.push(memory / 1024);
  }
  for (const [unit, of] of [
    ["ms", "wall"],
    ["MiB", "memory"],
  ] as const)
    for (const [i, [name]] of commands.entries())
      bench.figures.push(figure(section, name, unit, samples[i]![of]));
}

export async function wrap(bench: Bench): Promise<void> {
  const dir = bench.directory();
  const file = (name: string) => `${dir}/${name}`;
  const runs = (program: string, suffix = ""): [string, string[]][] => [
    [`exclusive run${suffix}`, [program, "run", "--dir", dir, "x", "/bin/true"]],
    [`exclusive run --exec${suffix}`, [program, "run", "--exec", "--dir", dir, "y", "/bin/true"]],
  ];
  const all: [string, string[], string?][] = [
    ["floor: Bun, spawn, exit", [bench.built("floor"), "/bin/true"]],
    ...runs(binary),
    ...(bench.base === undefined ? [] : runs(bench.built("base"), " (base)")),
    ["no wrapper", ["/bin/true"]],
    ["flock", ["flock", file("flock"), "/bin/true"], "util-linux"],
    ["setlock", ["setlock", file("setlock"), "/bin/true"], "daemontools"],
    ["s6-setlock", ["s6-setlock", file("s6"), "/bin/true"], "s6"],
    ["lckdo", ["lckdo", file("lckdo"), "/bin/true"], "moreutils"],
    ["with-lock-ex", ["with-lock-ex", "-w", file("with-lock-ex"), "/bin/true"], "chiark-utils-bin"],
    ["sem (parallel)", ["sem", "--id", "exclusive-bench", "--fg", "/bin/true"], "parallel"],
  ];
  const here = all.filter(([name, [program = ""], packaged]) => {
    const there = has(program);
    if (!there) bench.skip(`${name}: not installed (Debian: ${packaged})`);
    return there;
  });
  compare(
    bench,
    "wrap",
    here.map(([name, words]) => [name, words]),
    bench.quick ? 20 : 100,
  );
  const of = (name: string, unit: string) =>
    bench.figures.find((f) => f.section === "wrap" && f.name === name && f.unit === unit)!.median;
  const floor = "floor: Bun, spawn, exit";
  const target = (what: string, value: number, limit: number) =>
    bench.targets.push({ section: "wrap", what, value: round(value), limit });
  target("run, to the floor", of("exclusive run", "ms") / of(floor, "ms"), 1.75);
  target("run --exec, to the floor", of("exclusive run --exec", "ms") / of(floor, "ms"), 1.6);
  target("peak memory, MiB", of("exclusive run", "MiB"), 40);
}

/** `exclusive flock` beside flock(1). */
export async function flock(bench: Bench): Promise<void> {
  const dir = bench.directory();
  if (!has("flock")) return bench.skip("flock: flock(1) is not installed (Debian: util-linux)");
  const real = ["flock", `${dir}/real`, "/bin/true"];
  const ours = [binary, "flock", `${dir}/ours`, "/bin/true"];
  compare(
    bench,
    "flock",
    [
      ["flock(1)", real],
      ["exclusive flock", ours],
    ],
    bench.quick ? 20 : 100,
  );
}
