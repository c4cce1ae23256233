/** `exclusive run --on-event`: a hook that neither delays the job nor changes its status. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { alive } from "../support/proc.ts";
import { command, exclusive, hold } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const linesOf = (file: string) =>
  existsSync(file) ? readFileSync(file, "utf8").trimEnd().split("\n") : ([] as string[]);

test("a hook gets each event as JSON on stdin, and its name and the lock's in the environment", async () => {
  using dir = new TempDir();
  const seen = dir.file("seen");
  const hook = `read -r line; printf '%s\\n' "$EXCLUSIVE_EVENT|$EXCLUSIVE_NAME|$line" >>${seen}`;
  const run = (...args: string[]) => exclusive(["run", "--on-event", hook, ...args], { dir });
  expect(await run("--label", 'it\'s "L"', "my job", "--", "sh", "-c", "exit 3")).toMatchObject({
    status: 3,
    stderr: "",
  });
  await using _holder = await hold(dir, "held");
  expect(await run("--if-held", "skip", "held", "true")).toMatchObject({ status: 0, stderr: "" });
  expect(await run("held", "true")).toMatchObject({ status: 75 });
  await until(() => linesOf(seen).length === 4, "four hooks");
  const events = linesOf(seen).map((line) => line.split("|"));
  for (const [event, name, json] of events) {
    expect(JSON.parse(json!)).toMatchObject({ event: event!, name: name! });
    if (name === "my job") expect(JSON.parse(json!).label).toBe('it\'s "L"');
  }
  const named = events.map(([event, name]) => `${event} ${name}`).sort();
  expect(named).toEqual(["acquired my job", "refused held", "released my job", "skipped held"]);
});

test("a hook that sleeps a minute delays nothing, and keeps neither the lock nor the pipes of the job", async () => {
  using dir = new TempDir();
  const pids = dir.file("pids");
  const begun = performance.now();
  // Its readers see the end of stdout and stderr: `result` waits for that.
  const hook = `echo $$ >>${pids}; exec sleep 60`;
  const result = await exclusive(["run", "--on-event", hook, "t", "echo", "ran"], { dir });
  expect(result).toMatchObject({ status: 0, stdout: "ran\n", stderr: "" });
  expect(await exclusive(["run", "t", "true"], { dir })).toMatchObject({ status: 0 });
  expect(performance.now() - begun).toBeLessThan(30_000);
  await until(() => linesOf(pids).length === 2, "both hooks");
  const hooks = linesOf(pids).map(Number);
  try {
    expect(hooks.filter(alive)).toEqual(hooks);
    for (const pid of hooks) {
      const { stdout } = await command(["sh", "-c", `ls -l /proc/${pid}/fd | sed -n 's/.* -> //p'`]);
      expect(stdout.trim().split("\n").sort()).toEqual([
        "/dev/null",
        "/dev/null",
        expect.stringMatching(/^pipe:/), // its stdin
      ]);
      const { stdout: sid } = await command(["ps", "-o", "sid=", "-p", String(pid)]);
      const { stdout: ours } = await command(["ps", "-o", "sid=", "-p", String(process.pid)]);
      expect(sid).not.toBe(ours);
    }
  } finally {
    for (const pid of hooks) process.kill(pid, "SIGKILL");
  }
});

test("a hook that fails, is not found or does not read changes nothing", async () => {
  using dir = new TempDir();
  for (const hook of ["exit 9", "/no/such/program", "exec <&-; sleep 0", "kill -9 $$", "'"])
    expect(
      await exclusive(["run", "--on-event", hook, "t", "--", "sh", "-c", "echo out; exit 4"], { dir }),
    ).toEqual({ status: 4, signal: null, stdout: "out\n", stderr: "" });
});

test("the command has no child that it did not start, also with --exec", async () => {
  using dir = new TempDir();
  for (const mode of [[], ["--exec"]]) {
    const count = `ps -o pid= --ppid $$ | grep -vc "^ *$(sh -c 'echo $PPID')$" || true; wait; echo ok`;
    const { stdout } = await exclusive(
      ["run", ...mode, "--on-event", "exec sleep 1", "t", "--", "sh", "-c", `sleep 0.2; ${count}`],
      { dir },
    );
    const plain = await command(["sh", "-c", `sleep 0.2; ${count}`]);
    expect(stdout).toBe(plain.stdout);
  }
});

test("the command has the descriptors and signals that it has without a hook", async () => {
  using dir = new TempDir();
  const look = dir.file("look");
  writeFileSync(look, "ls /proc/self/fd | wc -l; grep ^Sig[BIC] /proc/self/status; ulimit -n\n");
  const run = async (...options: string[]) =>
    (
      await command(
        ["sh", "-c", `exec 5</dev/null; exec "$@"`, "sh", binary, "run", ...options, "t", "sh", look],
        { dir },
      )
    ).stdout;
  expect(await run("--on-event", "true", "--log-file", dir.file("log"))).toBe(await run());
});
