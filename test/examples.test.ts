/** Runs the programs of `examples/` as copies. */
import { expect, test } from "bun:test";
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { installPackage } from "./support/package.ts";
import { binary, root } from "./support/paths.ts";
import { waiters } from "./support/proc.ts";
import { Process, start } from "./support/process.ts";
import { hasRedis, startRedis } from "./support/servers.ts";
import { TempDir } from "./support/temp-dir.ts";
import { until } from "./support/until.ts";

/** A directory with the binary in PATH and a place for locks. */
class Host extends TempDir {
  readonly locks = new TempDir();
  readonly env: Record<string, string> = {};
  constructor() {
    super();
    mkdirSync(this.file("bin"));
    symlinkSync(binary, this.file("bin/exclusive"));
  }
  start(example: string, ...args: string[]): Process {
    return new Process([`${root}/examples/${example}`, ...args], {
      dir: this.locks,
      env: { PATH: `${this.file("bin")}:${process.env.PATH}`, ...this.env },
    });
  }
  override [Symbol.dispose](): void {
    this.locks[Symbol.dispose]();
    super[Symbol.dispose]();
  }
}

test("backup.sh makes an archive, keeps seven, and skips a second run", async () => {
  using host = new Host();
  const source = host.file("data");
  const target = host.file("backup");
  mkdirSync(source);
  mkdirSync(target);
  writeFileSync(`${source}/file`, "precious");
  for (let day = 1; day <= 9; day++) writeFileSync(`${target}/2026-01-0${day}T030000.tar.gz`, "");

  const first = await host.start("backup.sh", source, target).result;
  expect(first).toMatchObject({ status: 0, stdout: "", stderr: "" });
  const archives = readdirSync(target).sort();
  expect(archives).toHaveLength(7);
  expect(archives.slice(0, 6)).toEqual([4, 5, 6, 7, 8, 9].map((day) => `2026-01-0${day}T030000.tar.gz`));
  const list = await new Process(["tar", "-tzf", `${target}/${archives[6]}`]).result;
  expect(list.stdout).toContain("./file");

  const name = `backup of ${target}`;
  await using holder = start(["run", name, "--", "sh", "-c", "echo begun; exec sleep 60"], {
    dir: host.locks,
  });
  await holder.says("begun");
  const second = await host.start("backup.sh", source, target).result;
  expect(second.status).toBe(75);
  expect(second.stderr).toContain(`pid ${holder.pid}`);
  expect(readdirSync(target).sort()).toEqual(archives);
});

test("deploy.sh: one runs, one waits and takes the newest, the rest exit as it begins", async () => {
  using host = new Host();
  const checkout = host.file("checkout");
  const live = host.file("live");
  mkdirSync(checkout);
  host.env.EXCLUSIVE_LOG = "info"; // so that waiting and skipping are reported
  const push = (version: string) => writeFileSync(`${checkout}/version`, version);
  const deploy = () => host.start("deploy.sh", checkout, live);
  push("1");
  expect(await deploy().result).toMatchObject({ status: 0, stdout: "deployed 1\n" });

  // A slow deploy is running.
  const name = `deploy to ${live}`;
  await using slow = start(["run", name, "--", "sh", "-c", "echo begun; exec sleep 60"], { dir: host.locks });
  await slow.says("begun");
  push("2");
  await using waiting = deploy();
  await until(
    () => waiting.stderr.includes("waiting for"),
    "the second deploy to wait",
    () => waiting.stderr,
  );
  push("3");
  await using third = deploy();
  const head = host.locks.list().find((file) => file.includes("%00next"))!;
  await until(() => waiters(host.locks.file(head)) === 1, "the third deploy to wait behind it");
  slow.kill("SIGTERM");
  expect(await third.result).toMatchObject({
    status: 0,
    stdout: "",
    stderr: expect.stringContaining("already queued, and has begun"),
  });
  expect(await waiting.result).toMatchObject({ status: 0, stdout: "deployed 3\n" });
  expect(readFileSync(`${readlinkSync(`${live}/current`)}/version`, "utf8")).toBe("3");
  expect(host.locks.list()).toEqual([]);
});

test.if(hasRedis())(
  "server.ts: one instance works; the next one goes on when it leaves or dies",
  async () => {
    await using redis = await startRedis();
    using dir = new TempDir();
    installPackage(dir);
    copyFileSync(`${root}/examples/server.ts`, dir.file("server.ts"));
    const instance = () =>
      new Process([process.execPath, "server.ts", redis.url], {
        cwd: dir.path,
        env: { TTL: "1s", PORT: "0" },
      });
    /** The answer to `GET /`. */
    const ask = async (server: Process) => {
      await server.says("listening on");
      const url = /listening on (\S+)/.exec(server.stdout)![1]!;
      return (await (await fetch(url)).json()) as { pid: number; working: boolean; token: string };
    };
    const works = (server: Process) =>
      until(
        async () => (await ask(server)).working,
        "it works",
        () => server.stderr,
      );

    await using first = instance();
    await works(first);
    await using second = instance();
    expect(await ask(second)).toMatchObject({ pid: second.pid, working: false });
    const { token } = await ask(first);

    first.kill("SIGTERM");
    expect(await first.result).toMatchObject({ status: 0 });
    await works(second);
    expect(BigInt((await ask(second)).token)).toBeGreaterThan(BigInt(token));

    await using third = instance();
    expect(await ask(third)).toMatchObject({ working: false });
    second.kill("SIGKILL");
    await works(third);
    third.kill("SIGTERM");
    expect(await third.result).toMatchObject({ status: 0 });
  },
);
