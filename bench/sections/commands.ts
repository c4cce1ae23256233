/** The commands that only answer, beside an empty compiled program; and the size of the binary. */
import { statSync } from "node:fs";
import { figure, round } from "../figures.ts";
import { type Bench, binary, until } from "../setup.ts";
import { compare } from "./wrap.ts";

const EMPTY = "floor: an empty compiled program";
const HELD = 75;

export async function commands(bench: Bench): Promise<void> {
  const dir = bench.directory();
  const holder = Bun.spawn([binary, "run", "--dir", dir, "held", "sleep", "600"], { stdin: "ignore" });
  const status = [binary, "status", "--dir", dir, "held"];
  await until(() => Bun.spawnSync(status).success, "the holder");
  const answers: [string, string[], number?][] = [
    ["exclusive status", status],
    ["exclusive --help", [binary, "--help"]],
    ["a completion", [binary, "completion", "--answer", "run", "--"]],
    ["a refused exclusive run", [binary, "run", "--dir", dir, "held", "/bin/true"], HELD],
  ];
  compare(bench, "commands", [[EMPTY, [bench.built("empty")]], ...answers], bench.quick ? 20 : 100);
  holder.kill();
  await holder.exited;
  const of = (name: string) =>
    bench.figures.find((f) => f.section === "commands" && f.name === name && f.unit === "ms")!.median;
  const target = (what: string, value: number, limit: number) =>
    bench.targets.push({ section: "commands", what, value: round(value), limit });
  for (const [name] of answers) target(`${name}, to an empty program`, of(name) / of(EMPTY), 2.2);

  const [empty, ours] = [bench.built("empty"), binary].map((file) => statSync(file).size / 2 ** 20);
  bench.figures.push(figure("size", EMPTY, "MiB", [empty!]), figure("size", "exclusive", "MiB", [ours!]));
  target("size, % over an empty program", (ours! / empty! - 1) * 100, 2.2);
}
