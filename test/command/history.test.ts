/** `exclusive history`, against a count of its own over a log that was made at random. */
import { describe, expect, test } from "bun:test";
import { appendFileSync, writeFileSync } from "node:fs";
import { exclusive, hold } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

/** One event a line, as the program writes it. */
const line = (event: string, name: string, at: number, fields: object = {}) =>
  `${JSON.stringify({ time: new Date(at).toISOString(), event, name, pid: 1, ...fields })}\n`;

const T0 = Date.UTC(2026, 0, 1);
const MINUTE = 60_000;

/** What a random log must be counted as. */
interface Count {
  succeeded: number;
  failed: number;
  skipped: number;
  refused: number;
  held: number;
  lastSuccess: number | undefined;
  lastRun: number | undefined;
  lastExit: number | undefined;
  skippedSince: number;
}

/** A log of three locks with broken lines in between, and its count. */
function randomLog(events: number): { text: string; counts: Map<string, Count>; broken: number } {
  const counts = new Map<string, Count>();
  let text = "";
  let broken = 0;
  let seed = 42;
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor((seed / 2 ** 31) * below);
  };
  for (let i = 0; i < events; i++) {
    const name = ["a", 'q"uo\\te', "line\nbreak"][random(3)]!;
    const at = T0 + i * MINUTE;
    const none = { succeeded: 0, failed: 0, skipped: 0, refused: 0, held: 0, skippedSince: 0 };
    const count = counts.get(name) ?? {
      ...none,
      lastSuccess: undefined,
      lastRun: undefined,
      lastExit: undefined,
    };
    counts.set(name, count);
    const kind = random(10);
    if (kind === 0) {
      text += ["not json\n", "{}\n", '{"time":"x","event":"released","name":"a","pid":1}\n', '{"ti\n'][
        random(4)
      ]!;
      broken++;
    } else if (kind < 3) {
      text += line("skipped", name, at);
      count.skipped++;
      count.skippedSince++;
    } else if (kind < 4) {
      text += line("refused", name, at);
      count.refused++;
    } else {
      const hold = 1 + random(20);
      const exitCode = random(3) === 0 ? 1 + random(5) : 0;
      text += line("acquired", name, at, { waitSeconds: 0.5 });
      text += line("released", name, at + hold * 1000, { waitSeconds: 0.5, holdSeconds: hold, exitCode });
      count.held += hold;
      count.lastRun = at / 1000;
      count.lastExit = exitCode;
      if (exitCode !== 0) count.failed++;
      else {
        count.succeeded++;
        count.lastSuccess = at / 1000 + hold;
        count.skippedSince = 0;
      }
    }
  }
  return { text, counts, broken };
}

describe("history", () => {
  test("counts every event of a large log, skips broken lines and says how many", async () => {
    using dir = new TempDir();
    const { text, counts, broken } = randomLog(20_000);
    writeFileSync(dir.file("log"), text);
    const { stdout, stderr, status } = await exclusive(["history", "--json", "--log-file", dir.file("log")], {
      dir,
    });
    expect(status).toBe(0);
    expect(stderr).toBe(`exclusive: skipped ${broken} broken lines in ${dir.file("log")}\n`);
    const all = JSON.parse(stdout) as { name: string; sinceSuccess: { skipped: number } }[];
    expect(all.map(({ name }) => name).sort()).toEqual([...counts.keys()].sort());
    for (const one of all) {
      const count = counts.get(one.name)!;
      expect(one).toMatchObject({
        runs: { succeeded: count.succeeded, failed: count.failed, overran: 0, lost: 0, released: 0 },
        skipped: count.skipped,
        refused: count.refused,
        holdSeconds: count.held,
        exitCode: count.lastExit,
        lastRun: new Date(count.lastRun! * 1000).toISOString(),
        lastSuccess: new Date(count.lastSuccess! * 1000).toISOString(),
      });
      expect(one.sinceSuccess.skipped).toBe(count.skippedSince);
    }
  });

  test.if(required("promtool", "prometheus"))(
    "--prometheus: the same numbers, and promtool finds nothing wrong",
    async () => {
      using dir = new TempDir();
      const { text, counts } = randomLog(2000);
      writeFileSync(dir.file("log"), text);
      await using _holder = await hold(dir, "a");
      const { stdout } = await exclusive(["history", "--prometheus", "--log-file", dir.file("log")], { dir });
      const checked = Bun.spawnSync(["promtool", "check", "metrics"], { stdin: Buffer.from(stdout) });
      expect(checked.stderr.toString() + checked.stdout.toString()).toBe("");
      expect(checked.exitCode).toBe(0);
      const lines = stdout.split("\n");
      for (const [name, count] of counts) {
        const label = `{name="${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`;
        for (const [metric, value] of [
          ["exclusive_last_success_timestamp_seconds", count.lastSuccess],
          ["exclusive_last_run_timestamp_seconds", count.lastRun],
          ["exclusive_last_exit_code", count.lastExit],
          ["exclusive_skipped_total", count.skipped],
          ["exclusive_refused_total", count.refused],
          ["exclusive_held_seconds_total", count.held],
          ["exclusive_held", name === "a" ? 1 : 0],
        ] as const)
          expect(lines).toContain(`${metric}${label}} ${value}`);
        expect(lines).toContain(`exclusive_runs_total${label},result="succeeded"} ${count.succeeded}`);
        expect(lines).toContain(`exclusive_runs_total${label},result="failed"} ${count.failed}`);
      }
    },
  );

  test("NAME shows its last runs, how each ended, and what happened since the last success", async () => {
    using dir = new TempDir();
    const log = dir.file("log");
    const env = { EXCLUSIVE_LOG_FILE: log };
    const run = (...args: string[]) => exclusive(["run", ...args], { dir, env });
    await run("t", "true");
    await run("t", "sh", "-c", "exit 3");
    await run("--label", "night\x1b[2J", "t", "sh", "-c", "kill -9 $$");
    await run("other", "true");
    await using holder = await hold({ dir, env }, "t");
    await run("--if-held", "skip", "t", "true");
    await run("t", "true");
    const { stdout, stderr, status } = await exclusive(["history", "t"], { dir, env });
    expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
    const time = String.raw`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`;
    const rows = stdout.trimEnd().split("\n");
    expect(rows[0]).toMatch(/^STARTED +WAITED +RAN +ENDED +LABEL$/);
    for (const [i, ended] of ["ok", "exit 3", "SIGKILL +night\\\\x1b\\[2J", "running"].entries())
      expect(rows[i + 1]).toMatch(new RegExp(`^${time} +[\\d.]+s +(-|[\\d.]+s) +${ended}$`));
    expect(rows[5]).toMatch(/^'t' last succeeded \d+s ago; since then 2 failed, 1 skipped, 1 refused$/);
    expect((await exclusive(["history", "--last", "1", "t"], { dir, env })).stdout.split("\n").length).toBe(
      4,
    );
    const overview = await exclusive(["history"], { dir, env });
    expect(overview.stdout).toMatch(
      /^NAME +LAST RUN +ENDED +LAST SUCCESS +FAILED +SKIPPED +REFUSED\nother .* ok /,
    );
    holder.kill("SIGKILL"); // the wrapper: the command still has the lock
    await holder.result;
    expect((await exclusive(["history", "t"], { dir, env })).stdout).toContain("running");
  });

  test("a run without an end whose lock is free has no end recorded; an end without a begin is a run", async () => {
    using dir = new TempDir();
    const now = Date.now();
    const log = line("acquired", "cut", now, { waitSeconds: 0 });
    writeFileSync(dir.file("log"), log + line("released", "old", now, { holdSeconds: 60, exitCode: 0 }));
    const of = async (...args: string[]) =>
      (await exclusive(["history", "--log-file", dir.file("log"), ...args], { dir })).stdout;
    expect(await of("cut")).toContain("no end recorded");
    const [run] = JSON.parse(await of("--json", "old")).last;
    expect(run).toMatchObject({ started: new Date(now - 60_000).toISOString(), result: "succeeded" });
  });

  test("overran, orphaned, split and lost are part of the run that they belong to", async () => {
    using dir = new TempDir();
    const at = (second: number) => T0 + second * 1000;
    const fields = { holdSeconds: 5, waitSeconds: 0 };
    for (const text of [
      line("acquired", "t", at(0), { waitSeconds: 0 }),
      line("overran", "t", at(5), fields),
      line("released", "t", at(6), { ...fields, holdSeconds: 6, signal: "SIGTERM" }),
      line("acquired", "t", at(10), { waitSeconds: 0 }),
      line("split", "t", at(11), { holdSeconds: 1 }),
      line("orphaned", "t", at(15), { ...fields, signal: "SIGKILL", pids: [3] }),
      line("released", "t", at(16), { ...fields, holdSeconds: 6, signal: "SIGKILL" }),
      line("acquired", "t", at(20), { waitSeconds: 0 }),
      line("lost", "t", at(25), { ...fields, reason: "why" }),
    ])
      appendFileSync(dir.file("log"), text);
    const { stdout } = await exclusive(["history", "--json", "--log-file", dir.file("log"), "t"], { dir });
    const { runs, last } = JSON.parse(stdout);
    expect(runs).toEqual({ succeeded: 0, failed: 1, overran: 1, lost: 1, released: 0 });
    expect(last).toMatchObject([
      { result: "overran", signal: "SIGTERM", holdSeconds: 6 },
      { result: "failed", orphaned: true, split: true, holdSeconds: 6 },
      { result: "lost", reason: "why" },
    ]);
  });

  test("without a log file it says what to do; a file that cannot be read is an error", async () => {
    using dir = new TempDir();
    const env = { EXCLUSIVE_LOG_FILE: undefined };
    const none = await exclusive(["history"], { dir, env });
    expect(none).toMatchObject({ status: 64, stdout: "" });
    expect(none.stderr).toContain("--log-file FILE or EXCLUSIVE_LOG_FILE");
    const absent = await exclusive(["history", "--log-file", dir.file("absent")], { dir });
    expect(absent).toMatchObject({ status: 74, stdout: "" });
    expect(absent.stderr).toContain("No such file or directory");
    writeFileSync(dir.file("log"), "");
    for (const args of [[], ["t"]])
      expect(await exclusive(["history", "--log-file", dir.file("log"), ...args], { dir })).toMatchObject({
        status: 0,
        stdout: "",
        stderr: expect.stringContaining("no events"),
      });
    for (const wrong of [
      ["--last", "x"],
      ["a", "b"],
      ["--json", "--prometheus"],
      ["--log-file", ""],
    ])
      expect(await exclusive(["history", ...wrong], { dir })).toMatchObject({ status: 64 });
  });
});
