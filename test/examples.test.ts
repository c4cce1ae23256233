/** The programs of `examples/`, as somebody who copied them runs them. */
import { expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { binary, Process, root, start, TempDir, until } from "./support.ts";

/** A directory with the binary in PATH and a place for locks. */
class Host extends TempDir {
  readonly locks = new TempDir();
  constructor() {
    super();
    mkdirSync(this.file("bin"));
    symlinkSync(binary, this.file("bin/exclusive"));
  }
  start(example: string, ...args: string[]): Process {
    return new Process([`${root}/examples/${example}`, ...args], {
      dir: this.locks,
      env: { PATH: `${this.file("bin")}:${process.env.PATH}` },
    });
  }
  override [Symbol.dispose](): void {
    this.locks[Symbol.dispose]();
    super[Symbol.dispose]();
  }
}

test("backup.sh makes an archive, keeps seven, and leaves a second one out", async () => {
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

test("deploy.sh: one runs, one waits and takes the newest, the rest are done at once", async () => {
  using host = new Host();
  const checkout = host.file("checkout");
  const live = host.file("live");
  mkdirSync(checkout);
  const push = (version: string) => writeFileSync(`${checkout}/version`, version);
  const deploy = () => host.start("deploy.sh", checkout, live);
  push("1");
  expect(await deploy().result).toMatchObject({ status: 0, stdout: "deployed 1\n" });

  // Somebody is at it, as a slow deploy would be.
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
  const third = await deploy().result;
  expect(third).toMatchObject({ status: 0, stdout: "" });
  expect(third.stderr).toContain("somebody already waits");
  slow.kill("SIGTERM");
  expect(await waiting.result).toMatchObject({ status: 0, stdout: "deployed 3\n" });
  expect(readFileSync(`${readlinkSync(`${live}/current`)}/version`, "utf8")).toBe("3");
  expect(host.locks.list()).toEqual([]);
});
