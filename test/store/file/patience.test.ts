import { expect, test } from "bun:test";
import { close, fstat, open } from "../../../src/os/files.ts";
import { FileStore } from "../../../src/store/file/file-store.ts";
import { Patience } from "../../../src/store/file/patience.ts";
import { waiters } from "../../support/proc.ts";
import { exclusive, hold, type Process, start } from "../../support/process.ts";
import { TempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";

const file = fstat(open("/", 0) as number) as Exclude<ReturnType<typeof fstat>, string>;

test("a living holder is believed at once, except by a reader among readers", () => {
  const holder = { pid: process.pid, alive: true };
  const pause = (mode: "shared" | "exclusive", wanted: "shared" | "exclusive") =>
    new Patience().pause({ holder: { ...holder, mode }, file }, wanted);
  expect(pause("exclusive", "exclusive")).toBeUndefined();
  expect(pause("shared", "exclusive")).toBeUndefined();
  expect(pause("exclusive", "shared")).toBeUndefined();
  expect(pause("shared", "shared")).toBeNumber();
});

test("a refusal without a living holder is believed after a limited time", () => {
  const patience = new Patience();
  let time = 0;
  for (let pause = patience.pause({ holder: {}, file }, "exclusive"); pause !== undefined; ) {
    time += pause;
    pause = patience.pause({ holder: {}, file }, "exclusive");
  }
  expect(time).toBeGreaterThanOrEqual(31);
  expect(time).toBeLessThan(1000);
});

test("refused attempts leave no descriptor open", () => {
  using dir = new TempDir();
  const store = new FileStore({ dir: dir.path });
  const lease = store.tryAcquireSync({ name: "t", mode: "exclusive" })!;
  const lowest = () => {
    const fd = open("/", 0) as number;
    close(fd);
    return fd;
  };
  const before = lowest();
  for (let i = 0; i < 5; i++) {
    expect(store.tryAcquireSync({ name: "t", mode: "exclusive" })).toBeUndefined();
    expect(store.holderSync("t")).toMatchObject({ pid: process.pid });
  }
  expect(lowest()).toBe(before);
  lease.releaseSync();
});

test("waitFree whose signal has already fired is rejected with its reason, though the lock is free", async () => {
  using dir = new TempDir();
  const reason = new Error("enough");
  const store = new FileStore({ dir: dir.path });
  await expect(store.waitFree("t", AbortSignal.abort(reason))).rejects.toBe(reason);
});

for (const how of ["--keep", "--file"]) {
  test(`many that wait until the lock is free refuse no run: ${how}`, async () => {
    using dir = new TempDir();
    await Bun.write(dir.file("data"), "");
    const options = how === "--keep" ? ["--keep"] : ["--file", dir.file("data")];
    const asks = how === "--keep" ? [] : options;
    const path = how === "--keep" ? dir.lockfile("t") : dir.file("data");
    const holder = await hold(dir, "t", ...options);
    const waiting: Process[] = [];
    for (let i = 0; i < 60; i++) waiting.push(start(["wait", ...asks, "t"], { dir }));
    await until(() => waiters(path) === waiting.length, "all to wait");
    holder.kill();
    await holder.result;
    const ran = await exclusive(["run", ...options, "t", "--", "echo", "ran"], { dir });
    expect(ran).toMatchObject({ status: 0, stdout: "ran\n" });
    for (const { result } of waiting) expect(await result).toMatchObject({ status: 0 });
  });
}
