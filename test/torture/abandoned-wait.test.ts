/** A wait that is given up leaves nothing behind, whenever that is. */
import { expect, test } from "bun:test";
import { FileStore } from "../../src/store/file/file-store.ts";
import { TempDir } from "../support/temp-dir.ts";

test("a wait whose signal has fired already makes no file", async () => {
  using dir = new TempDir();
  const store = new FileStore({ dir: dir.path });
  const wait = store.waitAcquire({ name: "t", mode: "exclusive" }, AbortSignal.abort(new Error("enough")));
  await expect(wait).rejects.toThrow("enough");
  expect(dir.list()).toEqual([]);
});

test("a wait that gets the lock in the moment in which it is given up gives it back, with its file", async () => {
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
