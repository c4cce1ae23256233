/**
 * A fleet: the same cron line on 20 hosts, whose clocks are up to 5 seconds apart, and one server. Run
 * with `EXCLUSIVE_FLEET_TICKS=50`, as 50 ticks take a quarter of an hour on each engine.
 *
 * A loaded machine may start a host after the hold of its tick has ended. `--hold-for` does not promise to keep that host out,
 * so it is told from a second run by the times at which the locks were taken, and reported.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { openStore } from "../../src/index.ts";
import { describeEngines } from "../support/engines.ts";
import { FAKE_TIME, hasFakeTime } from "../support/faketime.ts";
import { start } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const HOSTS = 20;
const APART_MS = 5000;
/** Longer than the clocks are apart, with room for hosts that start late. */
const HOLD_MS = 12_000;
/** The time between two ticks. A tick begins later where a host of the one before has not ended yet, or its hold has not. */
const PERIOD_MS = 16_000;
/** A run reports the lock this much later than it took it, at most. */
const REPORT_MS = 1000;
const TICKS = Number(process.env.EXCLUSIVE_FLEET_TICKS ?? 2);

/** The default: a loaded machine must not miss its renewals. */
const LEASE = "15s";

/** Up to four times as long as on a machine that keeps up. */
setDefaultTimeout(TICKS * PERIOD_MS * 4 + 120_000);

/** How far ahead of the right time the clock of this host is, in milliseconds. */
const aheadOf = (host: number): number => APART_MS / 2 - (APART_MS * host) / (HOSTS - 1);

interface Run {
  tick: number;
  host: number;
  token: bigint;
  /** When the lock was taken, by a right clock. */
  at: number;
}

/** Starts the line on each host when its own clock comes to the tick. @returns the runs, in the order of their locks */
async function runFleet(env: Record<string, string>, ticks: number, options: string[]): Promise<Run[]> {
  using dir = new TempDir();
  const log = dir.file("log");
  const line = async (host: number, tick: number, from: number) => {
    const ahead = aheadOf(host);
    await Bun.sleep(Math.max(0, from + APART_MS / 2 - ahead - performance.now()));
    const run = ["run", "--if-held", "skip", "--ttl", LEASE, "--log-file", log, "--label", `${tick} ${host}`];
    const clock = { ...FAKE_TIME, FAKETIME: `${ahead < 0 ? "" : "+"}${(ahead / 1000).toFixed(3)}s` };
    await using process = start([...run, ...options, "tick", "--", "true"], { env: { ...env, ...clock } });
    expect(await process.result).toEqual({ status: 0, signal: null, stdout: "", stderr: "" });
  };
  const store = await openStore(env.EXCLUSIVE_STORE!, { ttl: LEASE });
  for (let tick = 0; tick < ticks; tick++) {
    const from = performance.now();
    await Promise.all(Array.from({ length: HOSTS }, (_, host) => line(host, tick, from)));
    await Bun.sleep(Math.max(0, from + PERIOD_MS - performance.now()));
    const isFree = async () => (await store.status("tick")).state === "free";
    await until(isFree, `the hold of tick ${tick} to end`);
  }
  await store.close();
  const events = readFileSync(log, "utf8").trim().split("\n");
  const acquired = events.map((line) => JSON.parse(line)).filter(({ event }) => event === "acquired");
  const runs = acquired.map(({ label, token, time }) => {
    const [tick, host] = label.split(" ").map(Number);
    return { tick, host, token: BigInt(token), at: Date.parse(time) - aheadOf(host) };
  });
  return runs.sort((a, b) => a.at - b.at);
}

if (hasFakeTime) {
  describeEngines(
    "20 hosts whose clocks are 5 s apart",
    (engine, env) => {
      const isWanted = process.env.EXCLUSIVE_FLEET_TICKS !== undefined;
      test.if(isWanted)("--hold-for: exactly one run a tick, and the tokens only grow", async () => {
        const ran = await runFleet(env(), TICKS, ["--hold-for", `${HOLD_MS}ms`]);
        const pairs = ran.slice(1).map((run, i) => ({ before: ran[i]!, run, apart: run.at - ran[i]!.at }));
        expect(pairs.filter(({ apart }) => apart < HOLD_MS - REPORT_MS)).toEqual([]);
        expect(pairs.filter(({ before, run }) => run.token <= before.token)).toEqual([]);
        const late = ran.filter(({ tick }, i) => ran.findIndex((run) => run.tick === tick) < i);
        expect([...new Set(ran.map(({ tick }) => tick))]).toEqual(Array.from({ length: TICKS }, (_, i) => i));
        const least = Math.min(...pairs.map(({ apart }) => apart)) / 1000;
        console.log(
          `${engine}: ${TICKS} ticks, ${ran.length - late.length} runs, ${late.length} hosts started after`,
        );
        console.log(`the hold of their tick; two runs were at least ${least.toFixed(3)} s apart`);
      });

      if (engine === "redis")
        test.if(isWanted)("without it a job that is short runs several times a tick", async () => {
          const ran = await runFleet(env(), 1, []);
          expect(ran.length).toBeGreaterThan(1);
        });
    },
    LEASE,
  );
}
