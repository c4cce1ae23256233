/**
 * `bun run bench [--quick] [--base DIR] [SECTION...]`: measures and prints a table. A complete run also writes
 * `bench/results.json`, the chart drawn from it, and the numbers in docs/speed.md. A run of some sections, with `--quick` or
 * with `--base` writes nothing. `--base` is another checkout to compare with, whose
 * packages are installed and whose `dist/exclusive` is built.
 */
import { cpus, release } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { type Results, table, targetTable } from "./figures.ts";
import { commands } from "./sections/commands.ts";
import { cycle } from "./sections/cycle.ts";
import { handover } from "./sections/handover.ts";
import { holding } from "./sections/holding.ts";
import { scale } from "./sections/scale.ts";
import { flock, wrap } from "./sections/wrap.ts";
import { command, has, here, setUp } from "./setup.ts";
import { draw } from "./svg.ts";

const SECTIONS = { wrap, commands, cycle, handover, holding, scale, flock };
type Section = keyof typeof SECTIONS;

const { values, positionals: named } = parseArgs({
  options: { quick: { type: "boolean", default: false }, base: { type: "string" } },
  allowPositionals: true,
});
const { quick } = values;
const base = values.base && resolve(values.base);
const unknown = named.find((name) => !Object.hasOwn(SECTIONS, name));
if (unknown !== undefined) {
  console.error(`no section ${unknown}: there are ${Object.keys(SECTIONS).join(", ")}`);
  process.exit(64);
}
if (process.platform !== "linux") {
  console.error("the bench reads /proc: it runs on Linux");
  process.exit(69);
}
if (!has("gcc")) {
  console.error("the bench needs gcc, for its floors and its stopwatch");
  process.exit(69);
}

using bench = await setUp(quick, base);
const sections = (named.length > 0 ? named : Object.keys(SECTIONS)) as Section[];
for (const section of sections) {
  console.error(`${section} …`);
  const before = bench.figures.length;
  await SECTIONS[section](bench);
  console.log(`\n${table(bench.figures.slice(before))}`);
}
if (bench.targets.length > 0) console.log(`\n${targetTable(bench.targets)}`);

const version = (argv: string[]) => command(argv).split("\n")[0]!;
const results: Results = {
  made: new Date().toISOString(),
  quick,
  machine: `Linux ${release().split("-")[0]} ${process.arch}, ${cpus().length} processors (${cpus()[0]!.model.trim()})`,
  versions: { bun: Bun.version, gcc: version(["gcc", "-dumpfullversion"]) },
  skipped: bench.skipped,
  figures: bench.figures,
  targets: bench.targets,
};
if (!quick && base === undefined && named.length === 0) await publish(results);

async function publish(results: Results): Promise<void> {
  await Bun.write(join(here, "results.json"), `${JSON.stringify(results, null, 2)}\n`);
  await Bun.write(join(here, "results.svg"), draw(results));
  await fill(join(here, "../docs/speed.md"), summary(results));
  await fill(
    join(here, "README.md"),
    `${results.machine}, Bun ${results.versions.bun}, ${results.made.slice(0, 10)}\n\n${table(results.figures)}\n\n${targetTable(results.targets)}`,
  );
  command(["node_modules/.bin/biome", "check", "--write", "docs/speed.md", "bench"], join(here, ".."));
}

/** Replaces the text between the two markers. */
async function fill(file: string, text: string): Promise<void> {
  const old = await Bun.file(file).text();
  const [begin, end] = ["<!-- numbers: written by bun run bench -->", "<!-- end of numbers -->"];
  const [from, to] = [old.indexOf(begin), old.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${file} has no markers for the numbers`);
  await Bun.write(file, `${old.slice(0, from)}${begin}\n\n${text}\n\n${old.slice(to)}`);
}

/** The table in docs/speed.md. */
function summary({ figures }: Results): string {
  const of = (section: string, name: string, unit: string) => {
    const found = figures.find((f) => f.section === section && f.name === name && f.unit === unit);
    return found ? `${found.median} ${unit} (${found.low} – ${found.high})` : "not measured";
  };
  return [
    "| what | `exclusive` | beside it |",
    "| --- | --- | --- |",
    `| a command wrapped, whole process | ${of("wrap", "exclusive run", "ms")} | the same Bun program without a lock: ${of("wrap", "floor: Bun, spawn, exit", "ms")}; flock(1): ${of("wrap", "flock", "ms")} |`,
    `| wrapped with \`--exec\` | ${of("wrap", "exclusive run --exec", "ms")} | |`,
    `| a lock taken and given back in a script | ${of("cycle", "acquireSync, releaseSync", "µs")} | the same system calls in C: ${of("cycle", "floor: the same calls in C", "µs")}; proper-lockfile: ${of("cycle", "proper-lockfile sync", "µs")} |`,
    `| handed over to a waiter | ${of("handover", "library, clean", "ms")} | after SIGKILL: ${of("handover", "library, after SIGKILL", "ms")} |`,
    `| memory of a wrapped command | ${of("holding", "exclusive run: resident", "MiB")} | with \`--exec\`: no wrapper stays |`,
    "",
    "Medians, and the middle half of the samples. [bench/README.md](../bench/README.md) has all of them, and what they mean.",
  ].join("\n");
}
