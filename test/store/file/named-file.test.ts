/** `--file`, and file systems that are special. */
import { expect, test } from "bun:test";
import { renameSync, writeFileSync } from "node:fs";
import { binary } from "../../support/paths.ts";
import { waiters } from "../../support/proc.ts";
import { command, exclusive, hold, start } from "../../support/process.ts";
import { required } from "../../support/required.ts";
import { TempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";

const strace = process.platform === "linux" && required("strace", "strace");
const inject = (what: string, ...args: string[]) => [
  ...["strace", "-f", "-qqq", "-e", "signal=none", "-o", "/dev/null", "-e", `inject=${what}`],
  ...[binary, ...args],
];

test.if(strace).each(["EBADF", "EIO"])(
  "--file where an exclusive lock needs a writable descriptor (%s, as on NFS): run, wait, status",
  async (error) => {
    using dir = new TempDir();
    writeFileSync(dir.file("f"), "precious");
    const fails = `flock:error=${error}:when=1`;
    const where = ["--file", dir.file("f"), "x"];
    for (const args of [
      ["run", ...where, "--", "true"],
      ["run", "--wait", ...where, "--", "true"],
    ])
      expect(await command(inject(fails, ...args), { dir })).toMatchObject({ status: 0, stderr: "" });
    expect(await command(inject(`flock:error=${error}:when=2`, "status", ...where), { dir })).toMatchObject({
      stdout: "'x' is free\n",
    });
    expect(await Bun.file(dir.file("f")).text()).toBe("precious");
  },
);

test.if(strace)("statx(2) that is refused, as by old seccomp profiles, changes nothing", async () => {
  using dir = new TempDir();
  for (const error of ["ENOSYS", "EPERM"]) {
    const ran = await command(inject(`statx:error=${error}`, "run", "x", "--", "echo", "ran"), { dir });
    expect(ran).toMatchObject({ status: 0, stdout: "ran\n", stderr: "" });
    expect(dir.list()).toEqual([]);
  }
});

test.if(process.platform === "linux")(
  "a file that is replaced by rename: a waiter locks the new one",
  async () => {
    using dir = new TempDir();
    writeFileSync(dir.file("c"), "1");
    await using first = await hold(dir, "x", "--file", dir.file("c"));
    const run = ["run", "--wait", "--file", dir.file("c"), "x", "--", "echo", "in"];
    await using waiter = start(run, { dir });
    await until(() => waiters(dir.file("c")) === 1, "the waiter");
    writeFileSync(dir.file("n"), "2");
    renameSync(dir.file("n"), dir.file("c"));
    await using second = await hold(dir, "x", "--file", dir.file("c")); // the first holder cannot be healed
    first.kill();
    await first.result;
    await until(() => waiters(dir.file("c")) === 1, "the waiter to wait for the new file");
    expect(waiter.running).toBe(true);
    expect(await exclusive(["run", "--file", dir.file("c"), "x", "--", "true"], { dir })).toMatchObject({
      status: 75,
    });
    second.kill();
    expect(await waiter.result).toMatchObject({ status: 0, stdout: "in\n" });
  },
);
