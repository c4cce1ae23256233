/**
 * `cycle.ts LIBRARY DIRECTORY BATCHES CYCLES [BASE]`: acquires and releases one free lock again and again, and prints
 * the nanoseconds of one cycle for each batch. The first batch warms up. The library `base` is that of another checkout.
 */
import { createRequire } from "node:module";

const [library = "", directory = "", batches = "", cycles = "", base = ""] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const path = `${directory}/${library}.lock`;

async function synchronous(entry: string) {
  const { Lock } = (await import(entry)) as typeof import("../src/index.ts");
  const lock = new Lock({ name: "sync", dir: directory });
  return () => {
    lock.acquireSync();
    lock.releaseSync();
  };
}

/** One cycle of each library, in the way its own documentation shows. */
const LIBRARIES: Record<string, () => Promise<() => unknown>> = {
  sync: () => synchronous("../src/index.ts"),
  base: () => synchronous(`${base}/src/index.ts`),
  async: async () => {
    const { Lock } = await import("../src/index.ts");
    const lock = new Lock({ name: "async", dir: directory });
    return async () => {
      await lock.acquire();
      await lock.release();
    };
  },
  "proper-lockfile sync": async () => {
    const { lockSync } = require("proper-lockfile");
    return () => lockSync(path, { realpath: false })();
  },
  "proper-lockfile": async () => {
    const { lock } = require("proper-lockfile");
    return async () => (await lock(path, { realpath: false }))();
  },
  "lockfile sync": async () => {
    const { lockSync, unlockSync } = require("lockfile");
    return () => {
      lockSync(path);
      unlockSync(path);
    };
  },
  "cross-process-lock": async () => {
    const { lock } = require("cross-process-lock");
    await Bun.write(path, "");
    return async () => (await lock(path))();
  },
  "fs-ext": async () => {
    const { flockSync } = require("fs-ext");
    const { closeSync, openSync, unlinkSync } = await import("node:fs");
    return () => {
      const fd = openSync(path, "w");
      flockSync(fd, "exnb");
      unlinkSync(path);
      flockSync(fd, "un");
      closeSync(fd);
    };
  },
};

const cycle = await LIBRARIES[library]!();
for (let batch = -1; batch < Number(batches); batch++) {
  const begun = Bun.nanoseconds();
  for (let i = 0; i < Number(cycles); i++) {
    const pending = cycle();
    if (pending instanceof Promise) await pending;
  }
  if (batch >= 0) console.log((Bun.nanoseconds() - begun) / Number(cycles));
}
