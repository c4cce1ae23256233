#!/usr/bin/env bun
/**
 * The torture at full length: `bun run torture --minutes 10 [--seed N] [--workers N] [--wrappers N]`.
 * Exits with 1 if anything was found.
 */
import { parseArgs } from "node:util";
import { chaos, type Totals } from "./chaos.ts";

/** Reports a usage error. */
function refuse(what: string): never {
  console.error(`torture: ${what}`);
  process.exit(64);
}

function options() {
  const number = { type: "string" } as const;
  try {
    return parseArgs({ options: { minutes: number, seed: number, workers: number, wrappers: number } })
      .values;
  } catch (error) {
    return refuse((error as Error).message);
  }
}

const values = options();
/** The value of a numeric option. */
function numberOf(option: keyof typeof values, otherwise: number): number {
  const text = values[option];
  if (text === undefined) return otherwise;
  const number = Number(text);
  return text !== "" && number >= 0 ? number : refuse(`--${option} takes a number, not '${text}'`);
}

const seed = numberOf("seed", crypto.getRandomValues(new Uint32Array(1))[0]!);
const milliseconds = numberOf("minutes", 10) * 60_000;
const workers = numberOf("workers", 4);
const wrappers = numberOf("wrappers", 4);

/** `acquisitions 12000, kills 130 (30 workers, 50 wrappers, 50 commands), …`. */
function line({ acquisitions, kills, stops, deletions, ...found }: Totals): string {
  const { workers, wrappers, commands } = kills;
  const killed = `${workers + wrappers + commands} (${workers} workers, ${wrappers} wrappers, ${commands} commands)`;
  const faults = Object.entries(found).map(([what, list]) => `${what} ${list.length}`);
  return `acquisitions ${acquisitions}, kills ${killed}, stops ${stops}, deletions ${deletions}, ${faults.join(", ")}`;
}

console.log(`seed ${seed}`);
const totals = await chaos({ milliseconds, seed, workers, wrappers }, (sum) => console.log(line(sum)));
const found = [totals.violations, totals.wedges, totals.leftovers, totals.failures].flat();
for (const what of found.slice(0, 50)) console.log(what);
process.exit(found.length === 0 ? 0 : 1);
