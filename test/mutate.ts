#!/usr/bin/env bun
/**
 * Mutation testing: `bun run mutate [--minutes N] [FILE...]` changes the core in small ways, one at a time, and looks whether
 * the tests of that file notice. By default every file of `TESTS`, one after the other; after N minutes no further file
 * is begun. Exits with 1 where fewer than 90 % are noticed, or a survivor does not stand in `survivors.json` with the reason why
 * it changes nothing that is promised.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { root } from "./support/paths.ts";

const STRYKER = "@stryker-mutator/core@9.6.1";
const SCORE_MIN = 90;

/** What must notice a change of the file. The first test that fails ends the run, so the quick ones stand first. */
const TESTS: Record<string, string[]> = {
  "src/name.ts": ["name"],
  "src/holder.ts": ["holder"],
  "src/errors.ts": ["errors", "lock"],
  "src/store/file/patience.ts": ["store/file/patience"],
  "src/store/file/lock-file.ts": ["store/file/file-store", "store/file/named-file", "lock"],
  "src/store/file/file-lease.ts": ["store/file/file-store", "lock", "command/run.policies"],
  "src/store/file/file-store.ts": ["store/file/file-store", "store/file/patience", "lock"],
  "src/acquire.ts": ["lock", "exclusive", "command/run.policies", "command/run.latest"],
  "src/lock.ts": ["lock", "logger", "events"],
  "src/command/run/run-plan.ts": ["command/run/plan", "command/cli/wrong-lines"],
  "src/command/run/supervise.ts": ["command/run.promises", "command/run.signals", "command/run.orphans"],
  "src/store/lease.ts": ["store/redis/redis.suite", "store/library", "store/redis/redis.faults"],
};

/** A change that no test noticed. */
interface Survivor {
  file: string;
  /** The line of the file, without the blanks around it. */
  line: string;
  /** What stands in place of a part of it. */
  replacement: string;
  reason?: string;
}

interface Report {
  files: Record<
    string,
    { mutants: { status: string; replacement?: string; location: { start: { line: number } } }[] }
  >;
}

const { values, positionals } = parseArgs({
  options: { minutes: { type: "string", default: "Infinity" } },
  allowPositionals: true,
});
const unknown = positionals.filter((file) => !(file in TESTS));
if (unknown.length > 0 || Number.isNaN(Number(values.minutes))) {
  console.error(`usage: bun run mutate [--minutes N] [FILE...]\nfiles: ${Object.keys(TESTS).join(" ")}`);
  process.exit(64);
}

const known: Survivor[] = JSON.parse(readFileSync(join(root, "test/survivors.json"), "utf8"));
const isKnown = (survivor: Survivor) =>
  known.some(
    ({ file, line, replacement }) =>
      file === survivor.file && line === survivor.line && replacement === survivor.replacement,
  );

/** Tries every change of a file. Returns how many were noticed, and the others. */
async function mutate(file: string, directory: string): Promise<{ noticed: number; survivors: Survivor[] }> {
  const tests = TESTS[file]!.map((name) => `test/${name}.test.ts`).join(" ");
  const report = join(directory, "report.json");
  const config = {
    testRunner: "command",
    commandRunner: { command: `bun test --bail --timeout 60000 ${tests}` },
    buildCommand: "bun build.ts",
    mutate: [file],
    concurrency: availableParallelism(),
    timeoutMS: 120_000,
    reporters: ["progress-append-only", "json"],
    jsonReporter: { fileName: report },
    ignorePatterns: ["dist", "bench"],
    tempDirName: "dist/mutate",
    allowEmpty: true,
  };
  const configFile = join(directory, "stryker.json");
  writeFileSync(configFile, JSON.stringify(config));
  const child = Bun.spawn(["npx", "--yes", "--package", STRYKER, "stryker", "run", configFile], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
  if ((await child.exited) !== 0) throw new Error(`stryker failed on ${file}`);
  const lines = readFileSync(join(root, file), "utf8").split("\n");
  const { mutants } = (JSON.parse(readFileSync(report, "utf8")) as Report).files[file]!;
  const survivors = mutants
    .filter(({ status }) => status === "Survived" || status === "NoCoverage")
    .map(({ location, replacement = "" }) => ({
      file,
      line: lines[location.start.line - 1]!.trim(),
      replacement,
    }));
  const noticed = mutants.filter(({ status }) => status === "Killed" || status === "Timeout").length;
  return { noticed, survivors };
}

const end = performance.now() + Number(values.minutes) * 60_000;
const directory = mkdtempSync(join(tmpdir(), "mutate-"));
let ok = true;
try {
  for (const file of positionals.length > 0 ? positionals : Object.keys(TESTS)) {
    if (performance.now() > end) {
      console.log(`${file}: not tried, the time is over`);
      continue;
    }
    const { noticed, survivors } = await mutate(file, directory);
    const fresh = survivors.filter((survivor) => !isKnown(survivor));
    const score = (100 * noticed) / Math.max(1, noticed + fresh.length);
    console.log(
      `${file}: ${noticed} noticed, ${fresh.length} not, ${survivors.length - fresh.length} listed`,
    );
    for (const survivor of fresh) console.log(JSON.stringify(survivor));
    if (score < SCORE_MIN || fresh.length > 0) ok = false;
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
process.exit(ok ? 0 : 1);
