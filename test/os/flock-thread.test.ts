/** Waits in the kernel's queue: without polling, without a leak, and with the right end. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { exclusive, type Process, start, startScript } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const linux = process.platform === "linux";
const SLEEP = ["--", "sh", "-c", "echo begun; exec sleep 60"];

/** Does this process wait for a lock, according to /proc/locks? */
const waits = (pid: number) =>
  readFileSync("/proc/locks", "utf8").includes("-> FLOCK  ADVISORY  WRITE ".concat(`${pid} `));

/** The sum of one line of /proc/PID/task/TID/status over the threads of a process. */
function sum(pid: number, key: string): number {
  let total = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const status = readFileSync(`/proc/${pid}/task/${task}/status`, "utf8");
    total += Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
  }
  return total;
}

describe.if(linux)("a wait", () => {
  test("wakes only for the lock: no polling", async () => {
    using dir = new TempDir();
    await using holder = start(["run", "t", ...SLEEP], { dir });
    await holder.says("begun");
    await using command = start(["run", "-v", "-w", "t", "true"], { dir });
    await using script = startScript(`await new Lock({ name: "t" }).acquire({ wait: true });`, dir);
    await until(() => waits(command.pid) && waits(script.pid), "two to wait");
    await until(() => command.stderr.includes("waiting for"), "the line");
    for (const { pid } of [command, script]) {
      // The engine is busy for a while after the start, with collections and compiler threads.
      let before = sum(pid, "voluntary_ctxt_switches");
      await until(async () => {
        const last = before;
        await Bun.sleep(1000);
        before = sum(pid, "voluntary_ctxt_switches");
        return before - last < 20;
      }, "fewer than 20 wake-ups in a second");
    }
  });

  test("that is given up leaves no lock, no descriptor, no thread: 60 times in one process", async () => {
    using dir = new TempDir();
    await using holder = start(["run", "t", ...SLEEP], { dir });
    await holder.says("begun");
    await using script = startScript(
      `
      import { readdirSync } from "node:fs";
      const count = () => [readdirSync("/proc/self/fd").length, readdirSync("/proc/self/task").length];
      const wait = async (options) => {
        try { await new Lock({ name: "t" }).acquire(options); } catch (error) { return error.lock === "t" ? error.code : error; }
        throw new Error("got a lock that is held");
      };
      const one = async (i) => {
        const reason = new Error("enough");
        const abort = new AbortController();
        if (i % 3 === 0) return (await wait({ timeout: i % 7 })) === (i % 7 ? "ETIMEDOUT" : "ELOCKED");
        setTimeout(() => abort.abort(reason), i % 5);
        if (i % 3 === 1) return (await wait({ wait: true, signal: abort.signal })) === reason;
        return (await wait({ wait: true, coalesce: true, signal: abort.signal })) === reason;
      };
      for (let i = 0; i < 6; i++) await one(i);
      let [fds, threads] = count();
      for (let i = 0; i < 60; i++) if (!(await one(i))) throw new Error("another end: " + i);
      // Many at once as well.
      const all = await Promise.all(Array.from({ length: 8 }, (_, i) => one(3 * i + 1)));
      if (!all.every(Boolean)) throw new Error("another end");
      const until = Date.now() + 20_000;
      let now = count();
      while ((now[0] > fds || now[1] > threads) && Date.now() < until) { await Bun.sleep(20); now = count(); }
      console.log(JSON.stringify({ fds: now[0] - fds, threads: now[1] - threads }));
      const got = await new Lock({ name: "other" }).acquire({ wait: true });
      got.releaseSync();
      `,
      dir,
    );
    const result = await script.result;
    expect(result).toMatchObject({ status: 0, stderr: "" });
    const { fds, threads } = JSON.parse(result.stdout);
    expect(fds).toBeLessThanOrEqual(0);
    expect(threads).toBeLessThanOrEqual(0);
    expect(readFileSync("/proc/locks", "utf8")).not.toContain(` ${script.pid} `);
    expect(dir.list()).toEqual(["exclusive_t.lock"]);
    holder.kill();
    expect(await exclusive(["run", "-t", "20", "t", "true"], { dir })).toMatchObject({ status: 0 });
    expect(dir.list()).toEqual([]);
  });

  test("that is aborted at the moment of the handover: the lock is acquired or free, never lost", async () => {
    using dir = new TempDir();
    await using script = startScript(
      `
      let had = 0;
      for (let i = 0; i < 60; i++) {
        const holder = new Lock({ name: "t" }).acquireSync();
        const abort = new AbortController();
        const waiting = new Lock({ name: "t" }).acquire({ wait: true, signal: abort.signal });
        await Bun.sleep(i % 6);
        holder.releaseSync();
        if (i % 2) await new Promise((resolve) => setImmediate(resolve));
        abort.abort();
        const got = await waiting.catch(() => undefined);
        if (got !== undefined) { had++; got.releaseSync(); }
        new Lock({ name: "t" }).acquireSync().releaseSync(); // throws if the one given up still has it
      }
      console.log("had", had);
      `,
      dir,
    );
    expect(await script.result).toMatchObject({
      status: 0,
      stderr: "",
      stdout: expect.stringContaining("had "),
    });
    expect(dir.list()).toEqual([]);
  });

  test("is served in the order of arrival", async () => {
    using dir = new TempDir();
    const log = dir.file("log");
    await using holder = start(["run", "t", ...SLEEP], { dir });
    await holder.says("begun");
    const all: Process[] = [];
    for (let i = 0; i < 12; i++) {
      const one = start(["run", "-wq", "t", "--", "sh", "-c", `echo ${i} >>${log}`], { dir });
      all.push(one);
      await until(() => waits(one.pid), "it to wait");
    }
    holder.kill();
    for (const { status } of await Promise.all(all.map((one) => one.result))) expect(status).toBe(0);
    expect(readFileSync(log, "utf8").trim().split("\n").map(Number)).toEqual(all.map((_, i) => i));
    expect(dir.list()).toEqual(["log"]);
  });

  test("a release wakes one of many, not all", async () => {
    using dir = new TempDir();
    await using holder = start(["run", "t", ...SLEEP], { dir });
    await holder.says("begun");
    const all = Array.from({ length: 8 }, () => start(["run", "-wq", "t", ...SLEEP], { dir }));
    try {
      await until(() => all.every((one) => waits(one.pid)), "all to wait");
      const wakeups = () => all.map(({ pid }) => sum(pid, "voluntary_ctxt_switches"));
      let before = wakeups();
      await until(async () => {
        const last = before;
        await Bun.sleep(500);
        before = wakeups();
        return before.every((count, i) => count - last[i]! < 15);
      }, "the engines to rest");
      holder.kill();
      await until(() => all.some((one) => one.stdout.includes("begun")), "the next to begin");
      const after = wakeups();
      const woken = after.filter((count, i) => count - before[i]! >= 15);
      expect(woken.length).toBeLessThanOrEqual(2);
      expect(all.filter((one) => waits(one.pid)).length).toBe(7);
    } finally {
      await Promise.all(all.map((one) => one[Symbol.asyncDispose]()));
    }
  });
});

test.if(linux)(
  "50 wait with mixed timeouts, a third is killed: each other one runs once or gives up in time",
  async () => {
    using dir = new TempDir();
    const log = dir.file("log");
    const inside = dir.file("inside");
    writeFileSync(log, "");
    await using holder = start(["run", "t", ...SLEEP], { dir });
    await holder.says("begun");
    // mkdir(1) fails for the second process: two at once would be in the log.
    const job = `mkdir ${inside} && sleep 0.05 && rmdir ${inside} && echo "ran $1" >>${log} || echo "two at once" >>${log}`;
    const waiting = Array.from({ length: 50 }, (_, i) => {
      const timeout = 2 + ((i * 7) % 10) * 0.5;
      const process = start(
        ["run", "-t", `${timeout}s`, "--log-format=json", "t", "--", "sh", "-c", job, "sh", String(i)],
        { dir },
      );
      return { i, timeout, process, victim: i % 3 === 2 };
    });
    try {
      await until(
        () => waiting.every(({ process }) => process.stderr.includes('"waiting"') || !process.running),
        "all to wait",
      );
      const victims = waiting.filter(({ victim }) => victim);
      for (const { process } of victims.splice(0, 8)) process.kill("SIGKILL");
      holder.kill();
      for (const { process } of victims) {
        await Bun.sleep(Math.random() * 100);
        // A process killed in the middle of its run would leave `inside` behind: only one that has not begun is killed.
        if (!process.stderr.includes('"acquired"')) process.kill(Math.random() < 0.5 ? "SIGKILL" : "SIGTERM");
      }
      for (const { i, timeout, process } of waiting) {
        const { status, signal, stderr } = await process.result;
        const ran = readFileSync(log, "utf8")
          .split("\n")
          .filter((line) => line === `ran ${i}`).length;
        if (signal !== null) continue;
        const events = stderr
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line) as { event: string; waitSeconds: number });
        if (status === 0) expect(ran).toBe(1);
        else {
          expect({ status, ran }).toEqual({ status: 75, ran: 0 });
          const last = events.at(-1)!;
          expect(last).toMatchObject({ event: "refused" });
          const { waitSeconds } = last;
          expect(waitSeconds < timeout ? last : "in time").toEqual("in time");
          expect(waitSeconds).toBeLessThan(timeout + 20); // 0.1 on a machine that has nothing else to do: see bench/
        }
      }
      expect(readFileSync(log, "utf8")).not.toContain("two at once");
      expect(await exclusive(["run", "-t", "20", "t", "true"], { dir })).toMatchObject({ status: 0 });
      expect(dir.list()).toEqual(["log"]);
    } finally {
      for (const { process } of waiting) process.kill("SIGKILL");
      await Promise.all(waiting.map(({ process }) => process.result));
    }
  },
);
