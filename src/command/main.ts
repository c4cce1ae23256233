#!/usr/bin/env bun
/**
 * Entry point. Blocks signals before any other module is parsed: the engine may then start a thread. Whatever is thrown while
 * the program is loaded ends it with 71: an uncaught exception would print source text and end it with 1, which `flock`
 * takes for a held lock.
 */
try {
  const { blockSignals } = await import("../os/signal-mask.ts");
  blockSignals();
  await import("./dispatch.ts");
} catch (error) {
  const { writeSync } = require("node:fs") as typeof import("node:fs");
  try {
    writeSync(2, `exclusive: cannot run here: ${(error as Error).message}\n`);
  } catch {} // no stderr
  process.exit(71);
}

export {}; // a module: else there is no `await`
