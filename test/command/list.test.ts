import { expect, test } from "bun:test";
import { chmodSync, symlinkSync, writeFileSync } from "node:fs";
import { canUnshare, unshare } from "../support/namespaces.ts";
import { binary, library, root } from "../support/paths.ts";
import { command, exclusive, hold, Process, start, startScript } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { KEY, TerminalProcess } from "../support/terminal.ts";
import { until } from "../support/until.ts";

const list = (dir: TempDir, ...args: string[]) => exclusive(["list", ...args], { dir });
const json = async (dir: TempDir) => JSON.parse((await list(dir, "--json")).stdout);
const isRoot = process.getuid?.() === 0;

/** In a new pid namespace. */

test("a table: name, state, pid, user, label, and the command line of the command", async () => {
  using dir = new TempDir();
  await using backup = await hold(dir, "backup", "--label", "nightly");
  await using index = await hold(dir, "index", "-s");
  await using other = await hold(dir, "index", "-s");
  const { stdout, status, stderr } = await list(dir);
  const [head, ...rows] = stdout
    .trimEnd()
    .split("\n")
    .map((line) => line.split(/ {2,}/));
  const user = (await command(["id", "-un"])).stdout.trim();
  expect(head).toEqual(["NAME", "STATE", "PID", "USER", "HELD FOR", "LABEL", "COMMAND"]);
  expect(rows).toEqual([
    ["backup", "held", String(backup.pid), user, expect.stringMatching(/^\d+s$/), "nightly", "sleep 600"],
    ["index", "shared", expect.stringMatching(/^\d+ \+1$/), user, expect.any(String), "sleep 600"],
  ]);
  expect([index.pid, other.pid].map(String)).toContain(rows[1]![2]!.replace(" +1", ""));
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
});

test("waiters are counted, those for a slot at each slot; the queue head is not a lock", async () => {
  using dir = new TempDir();
  await using _one = await hold(dir, "one");
  await using _a = await hold(dir, "two", "--slots", "2");
  await using _b = await hold(dir, "two", "--slots", "2");
  await using _w1 = start(["run", "--wait", "one", "--", "true"], { dir });
  await using _w2 = start(["run", "--if-held", "coalesce", "one", "--", "true"], { dir });
  await using _w3 = start(["run", "--wait", "--slots", "2", "two", "--", "true"], { dir });
  await using _w4 = start(["run", "--wait", "--slots", "2", "two", "--", "true"], { dir });
  let seen: unknown;
  await until(
    async () => {
      seen = (await json(dir)).map(({ name, waiters }: { name: string; waiters: number }) => [name, waiters]);
      return Bun.deepEquals(seen, [
        ["one", 2],
        ["two.1", 2],
        ["two.2", 2],
      ]);
    },
    "two waiters for each",
    () => JSON.stringify(seen),
  );
  expect((await list(dir)).stdout).toContain("WAITING");
});

test("a killed holder's lock is free: only --all lists its file, and nothing is deleted", async () => {
  using dir = new TempDir();
  const holder = startScript(
    `new Lock({ name: "job" }).acquireSync(); console.log("begun"); setInterval(() => {}, 1e6)`,
    dir,
  );
  await holder.says("begun");
  holder.kill("SIGKILL");
  await holder.result;
  expect(await json(dir)).toEqual([]);
  expect(JSON.parse((await list(dir, "--json", "--all")).stdout)).toEqual([
    { name: "job", state: "free", lockfile: dir.file("exclusive_job.lock") },
  ]);
  expect(dir.list()).toEqual(["exclusive_job.lock"]);
});

test("a command whose wrapper was killed is the holder", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "job");
  const [{ holder: before }] = await json(dir);
  holder.kill("SIGKILL");
  await holder.result;
  const [now] = await json(dir);
  expect(now).toMatchObject({
    state: "held",
    holder: { alive: false, commandPid: before.commandPid, commandLine: "sleep 600" },
  });
  expect((await list(dir)).stdout).toContain(String(before.commandPid));
  process.kill(before.commandPid, "SIGKILL");
});

test("an invented record is not believed: the kernel decides", async () => {
  using dir = new TempDir();
  await using stranger = new Process(["sleep", "600"]);
  await using holder = await hold(dir, "job");
  const file = dir.file("exclusive_job.lock");
  const [, line] = (await Bun.file(file).text()).split("\n");
  writeFileSync(file, `${stranger.pid}\n${line}\n`);
  expect((await json(dir))[0].holder).toMatchObject({ pid: holder.pid, alive: true });
  writeFileSync(file, "what is this?\n");
  expect((await json(dir))[0].holder).toMatchObject({ pid: holder.pid, alive: true });
});

test.if(canUnshare())("a holder in an inner pid namespace, and one in an outer", async () => {
  using dir = new TempDir();
  await using inside = new Process(
    [...unshare, binary, "run", "--label", "in there", "job", "--", "sh", "-c", "echo begun; exec sleep 600"],
    { dir },
  );
  await inside.says("begun");
  const [{ holder }] = await json(dir);
  expect(holder).toMatchObject({ alive: true, label: "in there", commandLine: "sleep 600" });
  const { stdout: line } = await command(["ps", "-o", "args=", "-p", String(holder.pid)]);
  expect(line).toContain("run --label in there job");

  const seen = await command([...unshare, binary, "list", "--json"], { dir });
  const [above] = JSON.parse(seen.stdout);
  expect(above).toMatchObject({ state: "held", holder: { label: "in there" } });
  expect(above.holder.alive).toBeUndefined();
  expect(above.holder.commandLine).toBeUndefined();
  process.kill(holder.pid, "SIGTERM");
});

test("files without read permission: held as the kernel reports, else unknown", async () => {
  using dir = new TempDir();
  chmodSync(dir.path, 0o755);
  await using holder = await hold(dir, "held");
  writeFileSync(dir.file("exclusive_other.lock"), "");
  for (const file of dir.list()) chmodSync(dir.file(file), 0);
  const unprivileged = isRoot ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] : [];
  const seen = await command([...unprivileged, binary, "list", "--json"], { dir });
  expect(JSON.parse(seen.stdout)).toMatchObject([
    { name: "held", state: "held", holder: { pid: holder.pid } },
    { name: "other", state: "unknown" },
  ]);
  const asked = await command([...unprivileged, binary, "status", "other"], { dir });
  expect(asked.status).toBe(77);
});

test("other files are not locks; a name too long for a file name is shown in full", async () => {
  using dir = new TempDir();
  const name = `${"long ".repeat(100)}name`;
  await using holder = await hold(dir, name);
  for (const file of [
    "exclusive_.lock",
    "exclusive_%zz.lock",
    "exclusive_%61.lock",
    "backup.lock",
    "exclusive_x",
  ])
    writeFileSync(dir.file(file), "");
  symlinkSync("/etc/passwd", dir.file("exclusive_link.lock"));
  const locks = await json(dir);
  expect(locks.map((lock: { name: string; state: string }) => [lock.name, lock.state])).toEqual([
    ["link", "unknown"],
    [name, "held"],
  ]);
  expect(locks[1].holder.pid).toBe(holder.pid);
});

test("--json has the type that the library exports", async () => {
  using dir = new TempDir();
  await using _one = await hold(dir, "one", "--label", "l");
  await using _two = await hold(dir, "two", "--slots", "2");
  await using _three = await hold(dir, "three", "--shared");
  await using _four = await hold(dir, "three", "--shared");
  writeFileSync(dir.file("exclusive_free.lock"), "");
  const all = (await list(dir, "--json", "--all")).stdout;
  const slots = (await exclusive(["status", "--json", "two"], { dir })).stdout;
  const file = dir.file("consumer.ts");
  const lines = [
    `import type { LockStatusJson } from ${JSON.stringify(library)};`,
    `${all.trim()} satisfies LockStatusJson[];`,
    `(${slots.trim()}) satisfies LockStatusJson;`,
    "const lock = null! as LockStatusJson;",
    "lock.holder!.acquiredAt satisfies string | undefined;",
    "// @ts-expect-error: JSON has no dates",
    "lock.holder!.acquiredAt satisfies Date | undefined;",
  ];
  writeFileSync(file, lines.join("\n"));
  const tsc = `${root}/node_modules/typescript/bin/tsc --noEmit --ignoreConfig --strict --skipLibCheck`;
  const options = `--target esnext --module preserve --types ${root}/node_modules/bun-types --allowImportingTsExtensions`;
  const checked = await command([process.execPath, ...`${tsc} ${options}`.split(" "), file]);
  expect(checked).toMatchObject({ status: 0, stdout: "" });
});

test("10,000 locks, all held, are all listed", async () => {
  using dir = new TempDir();
  const script = `for (let i = 0; i < 10_000; i++) new Lock({ name: "n" + i }).acquireSync(); console.log("begun"); setInterval(() => {}, 1e6)`;
  await using holder = startScript(script, dir);
  await holder.says("begun");
  const locks: { state: string; holder: { pid: number } }[] = await json(dir);
  expect(locks.filter((lock) => lock.state === "held" && lock.holder.pid === holder.pid)).toHaveLength(
    10_000,
  );
  holder.kill("SIGKILL");
});

test("no directory, a NAME, a full disk, a closed pipe", async () => {
  using dir = new TempDir();
  expect(await list(dir, "--dir", dir.file("none"))).toMatchObject({
    status: 74,
    stderr: expect.stringContaining("No such file or directory"),
  });
  expect(await list(dir, "backup")).toMatchObject({
    status: 64,
    stderr: expect.stringContaining("status NAME"),
  });
  expect(await list(dir)).toMatchObject({ status: 0, stdout: "", stderr: "" });
  const full = await command(["sh", "-c", `"${binary}" list --json > /dev/full`], { dir });
  expect(full).toMatchObject({ status: 74, stderr: expect.stringContaining("No space left") });
  for (let i = 0; i < 2000; i++) writeFileSync(dir.file(`exclusive_${i}.lock`), "");
  const gone = await command(
    ["bash", "-c", `"${binary}" list --all --json | head -c1; echo " \${PIPESTATUS[0]}"`],
    { dir },
  );
  expect(gone).toMatchObject({ stdout: "[ 141\n", stderr: "" });
});

test("--watch in a terminal: redrawn in place, cut to the screen, and gone on Ctrl-C with the cursor back", async () => {
  using dir = new TempDir();
  await using _one = await hold(
    dir,
    "one",
    "--label",
    "a label that is long enough for the edge of the screen",
  );
  await using watch = new TerminalProcess([binary, "list", "--watch", "--all"], {
    dir,
    columns: 70,
    rows: 6,
    env: { NO_COLOR: "1" },
  });
  await watch.shows("one");
  expect(watch.output).toContain("\x1b[?25l");
  const two = await hold(dir, "two");
  await watch.shows("two");
  two.kill();
  await two.result;
  await until(
    () => !watch.screen.some((line) => line.startsWith("two")),
    "the line is gone",
    () => watch.screen.join("\n"),
  );
  expect(watch.screen.filter((line) => line.startsWith("NAME"))).toHaveLength(1);
  for (const line of watch.screen) expect(line.length).toBeLessThanOrEqual(70);
  for (let i = 0; i < 20; i++) writeFileSync(dir.file(`exclusive_stale${i}.lock`), "");
  await watch.shows(/… and 1\d more/);
  watch.resize(100, 40);
  await watch.shows("stale19");
  watch.type(KEY.CTRL_C);
  expect(await watch.result).toMatchObject({ signal: "SIGINT" });
  expect(watch.output.lastIndexOf("\x1b[?25h")).toBeGreaterThan(watch.output.lastIndexOf("\x1b[?25l"));
  expect(watch.output.endsWith("\n")).toBe(true);
});

test("colors in a terminal, none with NO_COLOR or in a pipe", async () => {
  using dir = new TempDir();
  await using _one = await hold(dir, "one");
  for (const [env, colored] of [
    [{}, true],
    [{ NO_COLOR: "1" }, false],
  ] as const) {
    await using shown = new TerminalProcess([binary, "list"], { dir, env });
    await shown.result;
    await shown.shows("sleep 600");
    expect(shown.output.includes("\x1b[")).toBe(colored);
  }
  expect((await list(dir)).stdout).not.toContain("\x1b");
  for (const [env, colored] of [
    [{ CLICOLOR_FORCE: "1" }, true],
    [{ CLICOLOR_FORCE: "0" }, false],
    [{ CLICOLOR_FORCE: "1", NO_COLOR: "1" }, false],
  ] as const)
    expect((await exclusive(["list"], { dir, env })).stdout.includes("\x1b[")).toBe(colored);
});

test("--watch outside a terminal: the whole table again for each change; with --json one array a line", async () => {
  using dir = new TempDir();
  await using json = start(["list", "--watch", "--json"], { dir });
  await using text = start(["list", "--watch"], { dir });
  await json.says("[]\n");
  await using _one = await hold(dir, "one");
  await json.says('"name":"one"');
  await text.says("sleep 600");
  const lines = json.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines[0]).toEqual([]);
  expect(lines.at(-1)).toMatchObject([{ name: "one", state: "held" }]);
  expect(text.stdout).not.toContain("\x1b");
  json.kill("SIGINT");
  expect(await json.result).toMatchObject({ signal: "SIGINT" });
});
