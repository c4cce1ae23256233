/**
 * `holder.ts LIBRARY DIRECTORY`: one side of `handover`. Waits for the lock and prints when it has it. A line on stdin
 * makes it print the time and release the lock, the next line makes it wait again. Times are milliseconds of a clock
 * that all processes share.
 */
import { createRequire } from "node:module";
import { Lock } from "../src/index.ts";
import { clock } from "../src/os/clock.ts";

const [library = "", directory = ""] = process.argv.slice(2);
const require = createRequire(import.meta.url);

async function take(): Promise<() => Promise<void>> {
  if (library === "proper-lockfile") {
    const retries = { retries: 100_000, factor: 1, minTimeout: 10, maxTimeout: 10 };
    return require("proper-lockfile").lock(`${directory}/proper.lock`, { realpath: false, retries });
  }
  const lock = await new Lock({ name: "handover", dir: directory }).acquire({ wait: true });
  return () => lock.release();
}

const say = (what: string) => process.stdout.write(`${what} ${clock()}\n`);

const lines = console[Symbol.asyncIterator]();
for (;;) {
  say("wants");
  const release = await take();
  say("has");
  if ((await lines.next()).done) process.exit();
  say("leaves");
  await release();
  if ((await lines.next()).done) process.exit();
}
