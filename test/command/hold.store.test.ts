/** A lock that is kept without a command, in a store: exclusive hold, and run --hold-for. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { clock } from "../../src/os/clock.ts";
import { describeEngines, TTL } from "../support/engines.ts";
import { descendants, exclusive as exclusiveOf, type Result, start } from "../support/process.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(60_000);

describeEngines("kept without a command", (_engine, env, server) => {
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

  test("a server that stands still for most of a lease gives a kept lock to nobody else", async () => {
    const lease = ["--ttl", "9s"];
    await exclusive("hold", "-q", ...lease, "held");
    await exclusive("run", ...lease, "--hold-for", "10m", "tick", "--", "true");
    const names = ["held", "tick"];
    const waiting = names.map((name) =>
      start(["run", ...lease, "--wait", name, "--", "echo", "no"], { env: env() }),
    );
    await using _held = waiting[0]!;
    await using _tick = waiting[1]!;
    const list = async () => (await exclusive("list")).stdout;
    await until(async () => (await list()).split("kept until").length === 3, "both to be kept");
    const all = [server().pid, ...descendants(server().pid)];
    for (const pid of all) process.kill(pid, "SIGSTOP");
    await Bun.sleep(6500); // with work under it such a lock is lost at 6 s
    for (const pid of all) process.kill(pid, "SIGCONT");
    // Each waiter asks again within a second.
    await Bun.sleep(3000);
    expect(waiting.map(({ running, stdout }) => ({ running, stdout }))).toEqual(
      names.map(() => ({ running: true, stdout: "" })),
    );
    for (const name of names) await exclusive("stop", name);
  });

  test("stop ends --hold-for too; a command that runs longer than that, or cannot be started, leaves nothing", async () => {
    expect(await run("--hold-for", "10m", "stopped", "--", "true")).toMatchObject({ status: 0, stderr: "" });
    await until(
      async () => (await exclusive("status", "stopped")).stdout.includes("kept until"),
      "the keeper to have the main lock",
    );
    expect(await exclusive("stop", "stopped")).toMatchObject({ status: 0 });
    expect(await isFree("stopped")).toBe(true);
    expect(await run("--hold-for", "1ms", "long", "--", "sleep", "0.1")).toMatchObject({ status: 0 });
    expect(await isFree("long")).toBe(true);
    expect(await run("--hold-for", "10m", "absent", "--", "/absent")).toMatchObject({ status: 127 });
    expect(await isFree("absent")).toBe(true);
  });
});
