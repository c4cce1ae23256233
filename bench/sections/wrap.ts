/** Whole-process time and peak memory of `… true`. */
import { figure, round } from "../figures.ts";
import { type Bench, binary, command, has } from "../setup.ts";

/** Runs these in turn, A B C A B C, and notes their times and their memory. The first is the floor. */
export function compare(bench: Bench, section: string, commands: [string, string[]][], runs: number): void {
  const argv = commands.flatMap(([, words], i) => (i === 0 ? words : ["--and", ...words]));
  const samples = commands.map(() => ({ wall: [] as number[], memory: [] as number[] }));
  const warmUps = 2;
  const seen = commands.map(() => 0);
  for (const line of command([bench.built("measure"), String(runs + warmUps), ...argv])
    .trim()
    .split("\n")) {
    const [index = 0, status, wall = 0, , , memory = 0] = line.split(" ").map(Number);
    if (status !== 0) throw new Error(`${commands[index]![1].join(" ")} ended with ${status}`);
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
  const all: [string, string[], string?][] = [
    ["floor: Bun, spawn, exit", [bench.built("floor"), "/bin/true"]],
    ["exclusive run", [binary, "run", "--dir", dir, "x", "/bin/true"]],
    ["exclusive run --exec", [binary, "run", "--exec", "--dir", dir, "y", "/bin/true"]],
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
  const target = (what: string, name: string, unit: string, limit: number) =>
    bench.targets.push({ section: "wrap", what, value: round(of(name, unit) / of(floor, unit)), limit });
  target("run, to the floor", "exclusive run", "ms", 1.2);
  target("run --exec, to the floor", "exclusive run --exec", "ms", 1.1);
  target("peak memory, to the floor's", "exclusive run", "MiB", 1.25);
}

/** Our flock(1) beside the real one. */
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
