#!/usr/bin/env bun
/**
 * The torture at full length: `bun run torture --minutes 10 [--seed N] [--workers N] [--wrappers N]`.
 * Exit status 1 when anything was found.
 */
import { parseArgs } from "node:util";
import { type Totals, violence } from "./violence.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string" },
    workers: { type: "string", default: "4" },
    wrappers: { type: "string", default: "4" },
  },
});
const seed = values.seed === undefined ? crypto.getRandomValues(new Uint32Array(1))[0]! : Number(values.seed);
const minutes = Number(values.minutes);
for (const [option, number] of Object.entries({ ...values, seed, minutes })) {
  if (Number.isFinite(Number(number))) continue;
  console.error(`--${option} takes a number, not '${number}'`);
  process.exit(64);
}

/** `acquisitions 12000, kills 130 (30 workers, 50 wrappers, 50 commands), …`. */
function line({ acquisitions, kills, stops, deletions, ...found }: Totals): string {
  const { workers, wrappers, commands } = kills;
  const killed = `${workers + wrappers + commands} (${workers} workers, ${wrappers} wrappers, ${commands} commands)`;
  const faults = Object.entries(found).map(([what, list]) => `${what} ${list.length}`);
  return `acquisitions ${acquisitions}, kills ${killed}, stops ${stops}, deletions ${deletions}, ${faults.join(", ")}`;
}

console.log(`seed ${seed}`);
const totals = await violence(
  {
    milliseconds: minutes * 60_000,
    seed,
    workers: Number(values.workers),
    wrappers: Number(values.wrappers),
  },
  (sum) => console.log(line(sum)),
);
const found = [totals.violations, totals.wedges, totals.leftovers, totals.failures].flat();
for (const what of found.slice(0, 50)) console.log(what);
process.exit(found.length === 0 ? 0 : 1);
