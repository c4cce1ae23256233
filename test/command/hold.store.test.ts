/** A lock that is kept without a command, in a store: exclusive hold, and run --hold-for. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { clock } from "../../src/os/clock.ts";
import { describeEngines, TTL } from "../support/engines.ts";
import { exclusive as exclusiveOf, type Result, start } from "../support/process.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(60_000);

describeEngines("kept without a command", (_engine, env) => {
  const exclusive = (...args: string[]): Promise<Result> => exclusiveOf(args, { env: env() });
  const run = (...args: string[]) => exclusive("run", "--ttl", TTL, ...args);
  const isFree = async (name: string) => (await exclusive("status", "-q", name)).status === 3;

  test("hold ends at once; a refusal shows label and time, list the keeper; the lock outlives leases; stop gives it back", async () => {
    const held = await exclusive("hold", "--ttl", TTL, "--label", "no deploys", "held");
    expect(held).toEqual({ status: 0, signal: null, stdout: "'held' is kept until stopped\n", stderr: "" });
    await Bun.sleep(3000); // longer than a lease
    for (const args of [
      ["run", "held", "--", "echo", "no"],
      ["hold", "held"],
    ]) {
      const refused = await exclusive(...args);
      expect(refused).toMatchObject({ status: 75, stdout: "" });
      expect(refused.stderr).toMatch(/'held' is held by pid \d+ for \d+s \(no deploys\): kept until stopped/);
    }
    const [row] = JSON.parse((await exclusive("list", "--json")).stdout);
    expect(row).toMatchObject({ name: "held", state: "held", holder: { until: "stopped", alive: true } });
    expect(await exclusive("stop", "held")).toMatchObject({ status: 0 });
    expect(await isFree("held")).toBe(true);
    expect(await run("held", "--", "echo", "yes")).toMatchObject({ stdout: "yes\n", stderr: "" });
  });

  test("hold --for: a waiter has the lock when the time is over", async () => {
    const from = clock();
    await exclusive("hold", "-q", "--ttl", TTL, "--for", "2s", "timed");
    expect(await run("--wait", "timed", "--", "echo", "mine")).toMatchObject({ status: 0, stdout: "mine\n" });
    expect(clock() - from).toBeGreaterThan(2000);
  });

  test("--hold-for: run ends with its command and its output; the lock is kept, shown as kept, and then free", async () => {
    const from = clock();
    const ran = await run("--hold-for", "12s", "tick", "--", "sh", "-c", "echo ran; exit 3");
    expect(ran).toEqual({ status: 3, signal: null, stdout: "ran\n", stderr: "" });
    expect(clock() - from).toBeLessThan(12_000);
    expect(await run("-v", "--if-held", "skip", "tick", "--", "echo", "no")).toMatchObject({
      status: 0,
      stdout: "",
      stderr: expect.stringMatching(/skipped: .*kept until/),
    });
    await until(
      async () => (await exclusive("list")).stdout.includes("kept until"),
      "the keeper to have the main lock",
    );
    await using waiting = start(["run", "--ttl", TTL, "--wait", "tick", "--", "echo", "next"], {
      env: env(),
    });
    expect(await waiting.result).toMatchObject({ status: 0, stdout: "next\n" });
    expect(clock() - from).toBeGreaterThan(12_000);
  });

  test("stop ends --hold-for too; a command that runs longer than that leaves nothing", async () => {
    expect(await run("--hold-for", "10m", "stopped", "--", "true")).toMatchObject({ status: 0, stderr: "" });
    await until(
      async () => (await exclusive("status", "stopped")).stdout.includes("kept until"),
      "the keeper to have the main lock",
    );
    expect(await exclusive("stop", "stopped")).toMatchObject({ status: 0 });
    expect(await isFree("stopped")).toBe(true);
    expect(await run("--hold-for", "1ms", "long", "--", "sleep", "0.1")).toMatchObject({ status: 0 });
    expect(await isFree("long")).toBe(true);
  });
});
