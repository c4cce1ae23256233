/** Appends `count` numbered events to a log file, and notes in a file of its own how many it has appended. */
import { writeFileSync } from "node:fs";
import { appendEvent, newEvent } from "../../src/events.ts";

const [log, noted, name, count] = process.argv.slice(2) as [string, string, string, string];
for (let i = 0; i < Number(count); i++) {
  appendEvent(log, newEvent("acquired", name, { waitSeconds: i, lockfile: "/".repeat(i % 300) }));
  writeFileSync(noted, String(i + 1));
}
