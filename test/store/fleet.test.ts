/**
 * A fleet: the same cron line on 20 hosts, whose clocks are up to 5 seconds apart, and one server. Run
 * with `EXCLUSIVE_FLEET_TICKS=50` alone: it needs a machine that starts 20 engines within a few seconds, as a late host comes
 * after the hold.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { describeEngines } from "../support/engines.ts";
import { FAKE_TIME, hasFakeTime } from "../support/faketime.ts";
import { start } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";

const HOSTS = 20;
const APART_MS = 5000;
/** The time between two ticks: so much longer than `HOLD_MS` that the lock is free before the first host asks again. */
const PERIOD_MS = 20_000;
/** Longer than the clocks are apart, and a loaded machine delays a host. */
const HOLD_MS = 17_500;
const TICKS = Number(process.env.EXCLUSIVE_FLEET_TICKS ?? 2);

/** A loaded machine must not miss its renewals. */
const LEASE = "6s";

setDefaultTimeout(TICKS * PERIOD_MS + 120_000);

/** How far ahead of the right time the clock of this host is, in milliseconds. */
const aheadOf = (host: number): number => APART_MS / 2 - (APART_MS * host) / (HOSTS - 1);

interface Run {
  tick: number;
  token: bigint;
}

/** Starts the line on each host when its own clock comes to the tick. @returns the runs, in the order of their starts */
async function runFleet(env: Record<string, string>, ticks: number, options: string[]): Promise<Run[]> {
  using dir = new TempDir();
  const file = dir.file("ran");
  const from = performance.now() + APART_MS;
  const line = async (host: number, tick: number) => {
    const ahead = aheadOf(host);
    await Bun.sleep(Math.max(0, from + tick * PERIOD_MS - ahead - performance.now()));
    const job = `echo ${tick} $EXCLUSIVE_TOKEN >>${file}`;
    const run = ["run", "--if-held", "skip", "--ttl", LEASE, ...options, "tick", "--", "sh", "-c", job];
    const clock = { ...FAKE_TIME, FAKETIME: `${ahead < 0 ? "" : "+"}${(ahead / 1000).toFixed(3)}s` };
    await using process = start(run, { env: { ...env, ...clock } });
    expect(await process.result).toEqual({ status: 0, signal: null, stdout: "", stderr: "" });
  };
  const lines = Array.from({ length: ticks * HOSTS }, (_, i) => line(i % HOSTS, Math.floor(i / HOSTS)));
  await Promise.all(lines);
  const ran = existsSync(file) ? readFileSync(file, "utf8").trim().split("\n") : [];
  return ran.map((line) => {
    const [tick, token] = line.split(" ");
    return { tick: Number(tick), token: BigInt(token!) };
  });
}

if (hasFakeTime) {
  describeEngines(
    "20 hosts whose clocks are 5 s apart",
    (engine, env) => {
      const isWanted = process.env.EXCLUSIVE_FLEET_TICKS !== undefined;
      test.if(isWanted)("--hold-for: exactly one run a tick, and the tokens only grow", async () => {
        const ran = await runFleet(env(), TICKS, ["--hold-for", `${HOLD_MS}ms`]);
        expect(ran.map(({ tick }) => tick)).toEqual(Array.from({ length: TICKS }, (_, tick) => tick));
        for (const [i, { token }] of ran.entries())
          if (i > 0) expect(token).toBeGreaterThan(ran[i - 1]!.token);
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
