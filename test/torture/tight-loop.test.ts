/**
 * Eight processes take and release one lock in a tight loop. Each holder checks with a marker file, created with
 * O_EXCL, that it is alone. Takes 5 seconds; `MARKER_SECONDS=20` is the full length.
 */
import { expect, test } from "bun:test";
import { type Process, startScript } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";

const PROCESSES = 8;
const seconds = Number(process.env.MARKER_SECONDS ?? 5);

const TIGHT_LOOP = `
  import { closeSync, openSync, unlinkSync } from "node:fs";
  const marker = process.env.MARKER;
  const tally = { acquisitions: 0, violations: 0, refusals: 0, errors: [] };
  const lock = new Lock({ name: "tight" });
  const end = Date.now() + Number(process.env.MILLISECONDS);
  while (Date.now() < end) {
    try {
      lock.acquireSync();
    } catch (error) {
      if (error instanceof CannotAcquireLock) tally.refusals++;
      else tally.errors.push(String(error));
      continue;
    }
    tally.acquisitions++;
    try {
      closeSync(openSync(marker, "wx"));
      unlinkSync(marker);
    } catch (error) {
      tally.violations++;
    }
    lock.releaseSync();
  }
  console.log(JSON.stringify(tally));
`;

interface Tally {
  acquisitions: number;
  violations: number;
  refusals: number;
  errors: string[];
}

test(
  `${PROCESSES} processes in a tight loop for ${seconds} s: never two inside, no error, no file left`,
  async () => {
    using dir = new TempDir();
    using markers = new TempDir();
    const env = { MARKER: markers.file("marker"), MILLISECONDS: String(seconds * 1000) };
    const workers: Process[] = [];
    try {
      for (let i = 0; i < PROCESSES; i++) workers.push(startScript(TIGHT_LOOP, dir, { env }));
      const total: Tally = { acquisitions: 0, violations: 0, refusals: 0, errors: [] };
      for (const worker of workers) {
        const { status, stdout, stderr } = await worker.result;
        expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
        const tally = JSON.parse(stdout) as Tally;
        total.acquisitions += tally.acquisitions;
        total.violations += tally.violations;
        total.refusals += tally.refusals;
        total.errors.push(...tally.errors);
      }
      console.log(`tight loop: ${seconds} s, ${total.acquisitions} acquisitions, ${total.refusals} refusals`);
      expect(total).toMatchObject({ violations: 0, errors: [] });
      expect(total.acquisitions).toBeGreaterThan(PROCESSES);
      expect(total.refusals).toBeGreaterThan(0); // they did contend
      expect(dir.list()).toEqual([]);
      expect(markers.list()).toEqual([]);
    } finally {
      for (const worker of workers) await worker[Symbol.asyncDispose]();
    }
  },
  120_000 + seconds * 1000,
);
