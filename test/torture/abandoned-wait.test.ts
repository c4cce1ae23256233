/** A wait that is given up leaves nothing behind, at whatever moment. */
import { expect, test } from "bun:test";
import { FileStore } from "../../src/store/file/file-store.ts";
import { TempDir } from "../support/temp-dir.ts";

test("a wait whose signal has already fired creates no file", async () => {
  using dir = new TempDir();
  const store = new FileStore({ dir: dir.path });
  const wait = store.waitAcquire({ name: "t", mode: "exclusive" }, AbortSignal.abort(new Error("enough")));
  await expect(wait).rejects.toThrow("enough");
  expect(dir.list()).toEqual([]);
});

test("a wait that gets the lock at the moment it is given up releases the lock, and its file", async () => {
  using dir = new TempDir();
  const store = new FileStore({ dir: dir.path });
  const request = { name: "t", mode: "exclusive" } as const;
  for (let i = 0; i < 20; i++) {
    const holder = store.tryAcquireSync(request)!;
    const giveUp = new AbortController();
    const waits = [store.waitAcquire(request, giveUp.signal), store.waitAcquire(request)];
    await Bun.sleep(i % 5);
    await holder.release();
    giveUp.abort(new Error("enough"));
    for (const result of await Promise.allSettled(waits)) {
      if (result.status === "fulfilled") await result.value.release();
    }
    expect(dir.list()).toEqual([]);
  }
});
