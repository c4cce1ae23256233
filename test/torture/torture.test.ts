/** A short torture, and the proof that it finds a broken lock. `bun run torture` is the long form. */
import { expect, test } from "bun:test";
import { chaos, type Options, type Totals } from "./chaos.ts";
import { check } from "./checker.ts";

const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;

/** Rounds until enough has happened to say something: a busy machine needs more of them. */
async function rounds(options: Omit<Options, "seed">, enough: (sum: Totals) => boolean): Promise<Totals> {
  const sum = await chaos({ ...options, seed });
  for (let round = 1; !enough(sum) && round < 8; round++) {
    const more = await chaos({ ...options, seed: seed + round });
    sum.acquisitions += more.acquisitions;
    for (const kind of ["workers", "wrappers", "commands"] as const) sum.kills[kind] += more.kills[kind];
    for (const kind of ["violations", "wedges", "leftovers", "failures"] as const)
      sum[kind].push(...more[kind]);
  }
  return sum;
}

const killed = ({ kills }: Totals) => kills.workers + kills.wrappers + kills.commands;

test("no two processes hold one lock at once, whichever is stopped or killed, and nothing is left", async () => {
  const sum = await rounds(
    { milliseconds: 10_000, workers: 3, wrappers: 3 },
    (sum) => sum.acquisitions > 100 && killed(sum) > 3,
  );
  const { acquisitions, kills, violations, wedges, leftovers, failures } = sum;
  console.log(`torture: seed ${seed}, acquisitions ${acquisitions}, kills ${JSON.stringify(kills)}`);
  expect({ violations, wedges, leftovers, failures }).toEqual({
    violations: [],
    wedges: [],
    leftovers: [],
    failures: [],
  });
  expect(acquisitions).toBeGreaterThan(100);
  expect(killed(sum)).toBeGreaterThan(3);
}, 180_000);

/** Tries rounds of a broken lock until the fault is found. */
async function caught(fault: "no flock" | "no inode check" | "unlink after unlock"): Promise<boolean> {
  for (let round = 0; round < 10; round++) {
    const options = { milliseconds: 2000, seed: seed + round, workers: 4, wrappers: 0, fault };
    if ((await chaos(options)).violations.length > 0) return true;
  }
  return false;
}

for (const fault of ["no flock", "no inode check", "unlink after unlock"] as const) {
  test(`a lock with this fault is found out: ${fault}`, async () => {
    expect(await caught(fault)).toBe(true);
  }, 120_000);
}

test("the same lock without a fault is not found out", async () => {
  const { acquisitions, violations } = await rounds(
    { milliseconds: 3000, workers: 4, wrappers: 0, fault: "none" },
    (sum) => sum.acquisitions > 100,
  );
  expect(violations).toEqual([]);
  expect(acquisitions).toBeGreaterThan(100);
}, 60_000);

test("the checker judges each kind of log", () => {
  const violations = (...lines: string[]) => check(lines.join("\n")).violations.length;
  expect(violations("E a x 1", "L a 1", "E a x 2", "L a 2")).toBe(0);
  expect(violations("E a x 1", "E a x 2")).toBe(1);
  expect(violations("E a x 1", "E b x 2")).toBe(0);
  expect(violations("E a s 1", "E a s 2", "L a 1", "L a 2", "E a x 3")).toBe(0);
  expect(violations("E a s 1", "E a x 2")).toBe(1);
  expect(violations("E a x 1", "E a s 2")).toBe(1);
  expect(violations("E a 2 1", "E a 2 2")).toBe(0);
  expect(violations("E a 2 1", "E a 2 2", "E a 2 3")).toBe(1);
  expect(violations("E a 2 1", "E a 2 2", "K 1", "E a 2 3")).toBe(0);
  expect(violations("E a x 1", "K 1", "E a x 2")).toBe(0); // it may have ended
  expect(violations("E a x 1", "K 1", "E a x 2", "L a 1")).toBe(1); // it had not
  expect(violations("E a x 1", "E a x 2", "K 1")).toBe(1); // it was alive at that time
  expect(violations("E a x 1", "M a 1 2")).toBe(1);
  expect(violations("K 2", "E a x 1", "M a 1 2")).toBe(0);
  expect(violations("L a 1")).toBe(1);
  expect(violations("E a x")).toBe(1);
});
