/** The file of a held lock stays at its path, or is made there again. */
import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, lstatSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { binary } from "../../support/paths.ts";
import { alive } from "../../support/proc.ts";
import {
  childrenOf,
  command,
  exclusive,
  hold,
  type Process,
  start,
  startScript,
} from "../../support/process.ts";
import { required } from "../../support/required.ts";
import { TempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";

const FOREVER = `new Lock({ name: "t" }).forever(); console.log("begun"); setInterval(() => {}, 1e6)`;

/** Ways to hold the lock `t`; with slots it is `t.1`. */
const WAYS: Record<string, (dir: TempDir) => Promise<Process>> = {
  run: (dir) => hold(dir, "t"),
  "run --keep": (dir) => hold(dir, "t", "--keep"),
  "run --shared": (dir) => hold(dir, "t", "--shared"),
  "run --slots 1": (dir) => hold(dir, "t", "--slots", "1"),
  "run --exec": (dir) => hold(dir, "t", "--exec"),
  "forever()": async (dir) => {
    const script = startScript(FOREVER, dir);
    await script.says("begun");
    return script;
  },
};

const fileOf = (dir: TempDir, way: string) => dir.lockfile(way.includes("slots") ? "t.1" : "t");
const refusal = (dir: TempDir, way: string) =>
  exclusive(["run", ...(way.includes("slots") ? ["--slots", "1"] : []), "t", "--", "echo", "no"], { dir });

const tmpfiles =
  process.platform === "linux" && process.getuid?.() === 0 && required("systemd-tmpfiles", "systemd");

test.if(tmpfiles).each(Object.keys(WAYS))(
  "systemd-tmpfiles leaves the file of a held lock, and takes one that was left: %s",
  async (way) => {
    using dir = new TempDir();
    using config = new TempDir();
    writeFileSync(config.file("c.conf"), `d ${dir.path} 1777 root root 1s\n`);
    const clean = () => command(["systemd-tmpfiles", "--clean", config.file("c.conf")]);
    await using holder = await WAYS[way]!(dir);
    const { ino } = lstatSync(fileOf(dir, way));
    writeFileSync(dir.file("other"), "");
    await until(async () => {
      expect((await clean()).status).toBe(0);
      return !existsSync(dir.file("other")); // from now on everything is old
    }, "the cleaner to clean");
    for (let times = 0; times < 10; times++) await clean();
    expect(lstatSync(fileOf(dir, way)).ino).toBe(ino);
    expect(await refusal(dir, way)).toMatchObject({ status: 75, stdout: "" });
    holder.kill();
    await holder.result;
  },
);

test.if(tmpfiles)("a file that --keep leaves is an ordinary one for cleaners", async () => {
  using dir = new TempDir();
  expect(await exclusive(["run", "--keep", "t", "--", "true"], { dir })).toMatchObject({ status: 0 });
  expect(lstatSync(dir.lockfile("t")).mode & 0o7777).toBe(0o644);
});

test.each(Object.keys(WAYS).filter((way) => way !== "run --exec"))(
  "a removed file is there again within seconds, held and with its record: %s",
  async (way) => {
    using dir = new TempDir();
    await using holder = await WAYS[way]!(dir);
    const path = fileOf(dir, way);
    const record = readFileSync(path, "utf8");
    rmSync(path);
    const removed = performance.now();
    await until(() => existsSync(path) && readFileSync(path, "utf8") === record, "the file");
    expect(performance.now() - removed).toBeLessThan(5000);
    await until(() => holder.stderr.includes("it is there again, and locked"), "the report");
    expect(await refusal(dir, way)).toMatchObject({ status: 75, stdout: "" });
    holder.kill();
    await holder.result;
    expect(dir.list()).toEqual(way.includes("keep") ? ["exclusive_t.lock"] : []);
    expect(await exclusive(["run", "t", "--", "echo", "in"], { dir })).toMatchObject({ stdout: "in\n" });
  },
);

test("a waiter of before the removal gets the lock when the holder ends, not earlier", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "t");
  await using waiter = start(["run", "-v", "--wait", "t", "--", "echo", "mine"], { dir });
  await until(() => waiter.stderr.includes("waiting"), "it waits");
  rmSync(dir.lockfile("t"));
  await until(() => existsSync(dir.lockfile("t")), "the file");
  expect(waiter.running).toBe(true);
  holder.kill();
  expect(await waiter.result).toMatchObject({ status: 0, stdout: "mine\n" });
  expect(dir.list()).toEqual([]);
});

test("a second holder that came after the removal is reported by both, and by status; then the path is retaken", async () => {
  using dir = new TempDir();
  const forever = startScript(FOREVER, dir);
  await using first = forever;
  await first.says("begun");
  rmSync(dir.lockfile("t"));
  await using second = await hold(dir, "t"); // before the next look of the first
  await until(() => first.stderr.includes(`pid ${second.pid} holds the lock at the same time`), "the first");
  await until(() => second.stderr.includes(`pid ${first.pid} holds the lock at the same time`), "the second");
  const { stdout } = await exclusive(["status", "t"], { dir });
  expect(stdout).toContain(`held by pid ${second.pid}`);
  expect(stdout).toMatch(new RegExp(`and held by pid ${first.pid}.*, whose lock file was removed`));
  const { removed } = JSON.parse((await exclusive(["status", "--json", "t"], { dir })).stdout);
  expect(removed).toMatchObject([{ pid: first.pid }]);
  second.kill();
  await second.result;
  await until(() => first.stderr.includes("it is there again"), "the path to be retaken");
  expect(await refusal(dir, "run")).toMatchObject({ status: 75 });
});

test.if(process.platform === "linux")(
  "status: a lock is held while its file is gone, as long as its holder runs",
  async () => {
    using dir = new TempDir();
    await using holder = await hold(dir, "t", "--exec");
    rmSync(dir.lockfile("t"));
    const { stdout, status } = await exclusive(["status", "t"], { dir });
    expect(stdout).toMatch(
      new RegExp(`^'t' is held by pid ${holder.pid} .*, whose lock file was removed\n$`),
    );
    expect(status).toBe(0);
    expect(await exclusive(["status", "-q", "t"], { dir })).toMatchObject({ status: 0, stdout: "" });
    const json = JSON.parse((await exclusive(["status", "--json", "t"], { dir })).stdout);
    expect(json).toMatchObject({ state: "held", removed: [{ pid: holder.pid }] });
    holder.kill();
    await holder.result;
    expect(await exclusive(["status", "t"], { dir })).toMatchObject({ status: 3 });
  },
);

const linux = process.platform === "linux";

/** A run of which the lock's file was removed, and taken again; with the pid of its command, of which a child is at work. */
async function retaken(dir: TempDir, ...options: string[]): Promise<{ holder: Process; pid: number }> {
  const holder = start(["run", ...options, "t", "--", "sh", "-c", "echo $$; sleep 600; true"], { dir });
  await holder.says("\n");
  rmSync(dir.lockfile("t"));
  await until(() => holder.stderr.includes("it is there again"), "the path to be retaken");
  return { holder, pid: Number(holder.stdout) };
}

describe.if(linux)("a removed file was taken again, and then the wrapper is killed", () => {
  const status = (dir: TempDir) => exclusive(["status", "t"], { dir });
  const kill = async (holder: Process) => {
    holder.kill("SIGKILL");
    await holder.result;
  };

  for (const options of [[], ["--keep"], ["--shared"]]) {
    test(`the lock stays with its command, by which stop and status know it: ${options}`, async () => {
      using dir = new TempDir();
      const { holder, pid } = await retaken(dir, ...options);
      await using _holder = holder;
      await kill(holder);
      expect(await refusal(dir, "run")).toMatchObject({ status: 75, stdout: "" });
      await until(
        async () => (await status(dir)).stdout.includes(`by pid ${pid} `),
        "status to name the command",
      );
      expect((await exclusive(["list"], { dir })).stdout).toContain(` ${pid} `);
      expect(await exclusive(["stop", "t"], { dir })).toMatchObject({
        status: 0,
        stderr: `exclusive: stopped pid ${pid}: 't' is free\n`,
      });
      expect(alive(pid)).toBe(false);
      expect(await exclusive(["run", "t", "--", "echo", "in"], { dir })).toMatchObject({ stdout: "in\n" });
    });
  }

  test("with what the command left, once that is killed too; --if-held replace ends it", async () => {
    using dir = new TempDir();
    const { holder, pid } = await retaken(dir);
    await using _holder = holder;
    const [child] = childrenOf(pid);
    process.kill(pid, "SIGKILL");
    await holder.result;
    expect(holder.stderr).toContain(`stays locked by 1 process that the command left (pid ${child})`);
    expect(await refusal(dir, "run")).toMatchObject({ status: 75, stdout: "" });
    const words = `held by pid ${child} (left by its command)`;
    await until(async () => (await status(dir)).stdout.includes(words), "status to name the child");
    const next = ["run", "--if-held", "replace", "t", "--", "echo", "in"];
    expect(await exclusive(next, { dir })).toMatchObject({ stdout: "in\n" });
    expect(alive(child!)).toBe(false);
  });

  test("a waiter of before the removal gets the lock when the command has ended, and not earlier", async () => {
    using dir = new TempDir();
    await using holder = await hold(dir, "t");
    await using waiter = start(["run", "-v", "--wait", "t", "--", "echo", "mine"], { dir });
    await until(() => waiter.stderr.includes("waiting"), "it waits");
    const [pid] = childrenOf(holder.pid);
    rmSync(dir.lockfile("t"));
    await until(() => holder.stderr.includes("it is there again"), "the path to be retaken");
    await kill(holder);
    expect(await refusal(dir, "run")).toMatchObject({ status: 75, stdout: "" });
    expect(waiter.running).toBe(true);
    process.kill(pid!, "SIGKILL");
    expect(await waiter.result).toMatchObject({ status: 0, stdout: "mine\n" });
  });

  test("status and stop know what has a file that was not taken again", async () => {
    using dir = new TempDir();
    await using holder = start(["run", "t", "--", "sh", "-c", "echo $$; sleep 600; true"], { dir });
    await holder.says("\n");
    const pid = Number(holder.stdout);
    await kill(holder);
    rmSync(dir.lockfile("t"));
    expect((await status(dir)).stdout).toMatch(`'t' is held by pid ${pid} for`);
    expect(await exclusive(["stop", "t"], { dir })).toMatchObject({ status: 0 });
    expect(alive(pid)).toBe(false);
    expect(await status(dir)).toMatchObject({ status: 3 });
  });

  test("nothing stays behind a run that ends by itself, or after --max-runtime", async () => {
    using dir = new TempDir();
    const { holder, pid } = await retaken(dir, "--max-runtime", "5s", "--kill-after", "1h");
    await using _holder = holder;
    const keepers = childrenOf(holder.pid).filter((child) => child !== pid);
    expect(keepers.length).toBe(1);
    expect(await holder.result).toMatchObject({ status: 124 });
    await until(() => !keepers.some(alive), "the process that kept the file to end");
    expect(dir.list()).toEqual([]);
  });
});

test.if(linux)(
  "stop ends what a reader's killed wrapper left, also when a later reader has come and gone",
  async () => {
    using dir = new TempDir();
    await using holder = start(["run", "--shared", "t", "--", "sh", "-c", "echo $$; exec sleep 600"], {
      dir,
    });
    await holder.says("\n");
    holder.kill("SIGKILL");
    await holder.result;
    expect(await exclusive(["run", "--shared", "t", "--", "true"], { dir })).toMatchObject({ status: 0 });
    expect(await exclusive(["stop", "t"], { dir })).toMatchObject({ status: 0 });
    expect(alive(Number(holder.stdout))).toBe(false);
  },
);

test("as JSON it is an event: split, retaken", async () => {
  using dir = new TempDir();
  await using first = await hold(dir, "t", "--log-format", "json");
  rmSync(dir.lockfile("t"));
  await using second = await hold(dir, "t", "--log-format", "json");
  await until(() => first.stderr.includes('"split"') && second.stderr.includes('"split"'), "both events");
  second.kill();
  await until(() => first.stderr.includes('"retaken"'), "the event");
});

test("a file that cannot be made again is reported once, and the command runs on", async () => {
  using dir = new TempDir();
  await using holder = await hold(dir, "t");
  rmSync(dir.lockfile("t"));
  chmodSync(dir.path, 0o500);
  (await import("node:fs")).symlinkSync("nowhere", dir.lockfile("t"));
  await until(() => holder.stderr.includes("cannot be made again: cannot open"), "the report");
  await Bun.sleep(1200);
  expect(holder.stderr.match(/cannot be made again/g)).toHaveLength(1);
  expect(holder.running).toBe(true);
  chmodSync(dir.path, 0o700);
  rmSync(dir.lockfile("t"));
  await until(() => holder.stderr.includes("it is there again"), "the file");
});

test("the file is young for cleaners that go by its times", async () => {
  using dir = new TempDir();
  const script = `import { LockPlace } from "${import.meta.dir}/../../../src/store/file/place.ts";
    const lock = new Lock({ name: "t" }).acquireSync();
    const real = performance.now.bind(performance);
    console.log("begun");
    setTimeout(() => { performance.now = () => real() + 11 * 60_000; }, 100);
    setInterval(() => {}, 1e6);`;
  await using holder = startScript(script, dir);
  await holder.says("begun");
  utimesSync(dir.lockfile("t"), 1, 1);
  await until(() => lstatSync(dir.lockfile("t")).mtimeMs > 1000 * 3600, "the touch");
  expect(lstatSync(dir.lockfile("t")).atimeMs).toBeGreaterThan(1000 * 3600);
});

test("locks of whatever mode or umask exclude: 777, 077, a crash before the mode was set", async () => {
  using dir = new TempDir();
  chmodSync(dir.path, 0o1777);
  for (const umask of ["777", "077", "000"]) {
    const run = `umask ${umask}; exec "$0" run t -- sh -c 'echo begun; exec sleep 600'`;
    await using holder = start(["run", "outer", "--", "sh", "-c", run, binary], { dir });
    await holder.says("begun");
    expect(lstatSync(dir.lockfile("t")).mode & 0o7777).toBe(0o1644);
    expect(await refusal(dir, "run")).toMatchObject({ status: 75 });
    holder.kill();
    await holder.result;
    await until(() => !existsSync(dir.lockfile("t")), "its end");
  }
  writeFileSync(dir.lockfile("t"), "", { mode: 0 });
  chmodSync(dir.lockfile("t"), 0);
  const unprivileged = process.getuid?.() === 0 && required("capsh", "libcap2-bin");
  const command_ = ["run", "t", "--", "echo", "in"];
  expect(await exclusive(command_, { dir })).toMatchObject({ status: 0, stdout: "in\n" });
  if (!unprivileged) return;
  writeFileSync(dir.lockfile("t"), "", { mode: 0 });
  chmodSync(dir.lockfile("t"), 0);
  const without = ["capsh", "--drop=cap_dac_override,cap_dac_read_search", "--", "-c", 'exec "$0" "$@"'];
  const ran = await command([...without, binary, ...command_], { dir });
  expect(ran).toMatchObject({ status: 0, stdout: "in\n" });
});
