/** A directory link that is rolled back while processes wait: the path names a file that it named before. */
import { expect, test } from "bun:test";
import { mkdirSync, renameSync, symlinkSync } from "node:fs";
import { FileStore } from "../../src/store/file/file-store.ts";
import { waiters } from "../support/proc.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const request = { name: "t", mode: "exclusive" } as const;

test("two waiters whose directory goes from A to B and back do not wait for each other", async () => {
  using dir = new TempDir();
  for (const name of ["a", "b"]) mkdirSync(dir.file(name));
  const link = (target: string) => {
    symlinkSync(target, dir.file("new"));
    renameSync(dir.file("new"), dir.file("current"));
  };
  const store = (name: string) => new FileStore({ dir: dir.file(name) });
  const file = (name: string) => dir.file(`${name}/exclusive_t.lock`);
  const giveUp = AbortSignal.timeout(20_000);
  for (let round = 0; round < 4; round++) {
    const [first, second] = round % 2 ? ["b", "a"] : ["a", "b"];
    // Each is the older file once.
    const made = (round < 2 ? [first, second] : [second, first]).map((name) => {
      const lease = store(name!).tryAcquireSync(request)!;
      Bun.sleepSync(20); // a file system counts in ticks
      return lease;
    });
    const holders = round < 2 ? made : made.reverse();
    link(first!);
    const one = store("current").waitAcquire(request, giveUp);
    await until(() => waiters(file(first!)) === 1, "the first to wait");
    link(second!);
    const two = store("current").waitAcquire(request, giveUp);
    await until(() => waiters(file(second!)) === 1, "the second to wait");
    // The first gets the file of the old directory, which stays locked, and waits for that of the new one.
    const stays = new FileStore({ dir: dir.file(first!), keep: true });
    expect(stays.tryAcquireSync(request)).toBeUndefined();
    holders[0]!.releaseSync();
    await until(() => waiters(file(second!)) === 2, "both to wait for one file");
    link(first!);
    holders[1]!.releaseSync();
    const winner = await Promise.race([one, two]);
    winner.releaseSync();
    for (const lease of await Promise.all([one, two])) lease.releaseSync();
  }
});
