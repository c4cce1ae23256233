/** Runs the installed package again and again: it once hung in one run of four hundred. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { addPackage, packInto } from "./support/package.ts";
import { Process } from "./support/process.ts";
import { TempDir } from "./support/temp-dir.ts";

/** The number of runs. 2400 is the full length. */
const RUNS = Number(process.env.PACKAGE_RUNS ?? 150);
const LANES = 2;
/** Far more than a run needs, even on a slow machine. */
const LIMIT_MS = 20_000;

const home = new TempDir();
const project = home.file("project");

beforeAll(async () => addPackage(project, await packInto(home)), 300_000);
afterAll(() => home[Symbol.dispose]());

/** The statuses of runs one after another; undefined for a run that did not end in time. */
async function lane(name: string, runs: number): Promise<(number | null | undefined)[]> {
  const statuses: (number | null | undefined)[] = [];
  for (let i = 0; i < runs; i++) {
    const argv = [`${project}/node_modules/.bin/exclusive`, "run", name, "--", "sh", "-c", "exit 7"];
    await using run = new Process(argv, { dir: home, cwd: project });
    statuses.push((await Promise.race([run.result, Bun.sleep(LIMIT_MS)]))?.status);
  }
  return statuses;
}

test(
  `each of ${RUNS} runs ends with the status of its command`,
  async () => {
    const lanes = Array.from({ length: LANES }, (_, i) => lane(`t${i}`, Math.ceil(RUNS / LANES)));
    const statuses = (await Promise.all(lanes)).flat();
    expect(statuses.filter((status) => status !== 7)).toEqual([]);
  },
  60_000 + RUNS * 1000,
);
