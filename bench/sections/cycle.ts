/** Acquiring and releasing a free lock within one process. */
import { figure, round } from "../figures.ts";
import { type Bench, command, has, here } from "../setup.ts";

/** The cycles of one batch, such that all batches take about the same time. */
const LIBRARIES: [library: string, cycles: number][] = [
  ["sync", 2000],
  ["async", 2000],
  ["proper-lockfile sync", 500],
  ["proper-lockfile", 300],
  ["lockfile sync", 1000],
  ["cross-process-lock", 200],
  ["fs-ext", 1000],
];

const NAMES: Record<string, string> = {
  sync: "acquireSync, releaseSync",
  async: "acquire, release",
  base: "acquireSync, releaseSync (base)",
};
export const FLOOR = "floor: the same calls in C";

export async function cycle(bench: Bench): Promise<void> {
  const batches = "5";
  const programs: [name: string, argv: (dir: string) => string[]][] = [
    [FLOOR, (dir) => [bench.built("cycle"), dir, batches, "3000"]],
  ];
  const libraries = bench.base === undefined ? LIBRARIES : [["base", 2000] as const, ...LIBRARIES];
  for (const [library, cycles] of libraries) {
    const name = NAMES[library] ?? library;
    const argv = (dir: string, n: number) => [
      process.execPath,
      `${here}/cycle.ts`,
      library,
      dir,
      batches,
      `${n}`,
      bench.base ?? "",
    ];
    try {
      command(argv(bench.directory(), 1));
      programs.push([name, (dir) => argv(dir, cycles)]);
    } catch (error) {
      bench.skip(
        `${name}: ${/error: (.*?)(?: from '.*)?$/m.exec(String(error))?.[1] ?? "does not run in Bun"}`,
      );
    }
  }
  const python = ["/usr/bin/python3", "python3"].find(has);
  if (python)
    programs.push(["python3, the same calls", (dir) => [python, `${here}/cycle.py`, dir, batches, "1000"]]);
  else bench.skip("python3: not installed");
  const samples = new Map<string, number[]>(programs.map(([name]) => [name, []]));
  for (let round = 0; round < (bench.quick ? 2 : 6); round++) {
    for (const [name, argv] of programs) {
      const out = command(argv(bench.directory())).trim().split("\n");
      samples.get(name)!.push(...out.map((line) => Number(line) / 1000));
    }
  }
  for (const [name] of programs) bench.figures.push(figure("cycle", name, "µs", samples.get(name)!));
  const of = (name: string) => bench.figures.find((f) => f.section === "cycle" && f.name === name)?.median;
  const ours = of("acquireSync, releaseSync")!;
  const target = (what: string, value: number | undefined, limit: number) => {
    if (value !== undefined) bench.targets.push({ section: "cycle", what, value: round(value), limit });
  };
  target("acquireSync and releaseSync, to the floor", ours / of(FLOOR)!, 1.6);
  const base = of(NAMES.base!);
  target("to the base", base && ours / base, 1.25);
  const proper = of("proper-lockfile sync");
  target("to proper-lockfile's sync form", proper && ours / proper, 0.2);
  const interpreted = of("python3, the same calls");
  target("to python3 with the same calls", interpreted && ours / interpreted, 1);
}
