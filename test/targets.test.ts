/** The binaries of a release: reproducible, small, and run where this machine can run them. */
import { beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, existsSync, readFileSync, statSync } from "node:fs";
import { arch, platform } from "node:os";
import { root } from "./support/paths.ts";
import { command, Process } from "./support/process.ts";
import { required } from "./support/required.ts";
import { TempDir } from "./support/temp-dir.ts";

const dist = (file: string) => `${root}/dist/${file}`;
const build = () => command([process.execPath, "build.ts", "--all"]);

const TARGETS = {
  "linux-x64": "bun-linux-x64-baseline",
  "linux-x64-musl": "bun-linux-x64-baseline-musl",
  "linux-arm64": "bun-linux-arm64",
  "linux-arm64-musl": "bun-linux-arm64-musl",
  "macos-x64": "bun-darwin-x64-baseline",
  "macos-arm64": "bun-darwin-arm64",
} as const;

beforeAll(async () => {
  expect(await build()).toMatchObject({ status: 0 });
}, 300_000);

test("SHA256SUMS is right and names all six, and a second build gives the same files", async () => {
  const check = () => command(["sha256sum", "--check", "--strict", "SHA256SUMS"], { cwd: `${root}/dist` });
  const sums = readFileSync(dist("SHA256SUMS"), "utf8");
  for (const name of Object.keys(TARGETS)) expect(sums).toContain(`  exclusive-${name}\n`);
  expect(await check()).toMatchObject({ status: 0 });
  expect(await build()).toMatchObject({ status: 0 });
  expect(readFileSync(dist("SHA256SUMS"), "utf8")).toBe(sums);
  expect(await check()).toMatchObject({ status: 0 });
}, 300_000);

for (const [name, target] of Object.entries(TARGETS)) {
  test(`exclusive-${name} is at most 4.5 % larger than an empty program`, async () => {
    using dir = new TempDir();
    await Bun.write(dir.file("empty.ts"), "");
    const outfile = dir.file("empty");
    await Bun.build({ entrypoints: [dir.file("empty.ts")], compile: { target, outfile } });
    expect(statSync(dist(`exclusive-${name}`)).size).toBeLessThanOrEqual(statSync(outfile).size * 1.045);
  }, 60_000);
}

/** How a target is run here: the prefix of the command line, and the environment. */
interface Runner {
  prefix?: string[];
  /** An emulator invents the start time in /proc/self/stat, so other processes cannot identify the emulated one. */
  emulated?: boolean;
  env?: Record<string, string>;
}

/** Runs a command, a refusal, a wait and `status` with a binary that may need an emulator. */
async function smoke(
  name: keyof typeof TARGETS,
  { prefix = [], env = {}, emulated }: Runner = {},
): Promise<void> {
  using dir = new TempDir();
  const start = (...args: string[]) =>
    new Process([...prefix, dist(`exclusive-${name}`), ...args], { dir, env });
  // The command is a program of this machine: it must not inherit what the emulated binary needs.
  const clean = Object.keys(env).flatMap((key) => ["-u", key]);
  await using holder = start("run", "smoke", "--", "env", ...clean, "sh", "-c", "echo begun; exec sleep 60");
  await holder.says("begun");
  const refused = await start("run", "smoke", "--", "true").result;
  expect(refused).toMatchObject({ status: 75, stdout: "" });
  expect(refused.stderr).toContain("is held by pid");
  // The engine aborts where its first reservation fails: `build/abort.ts` makes that a status of its own.
  const unable = await new Process([...prefix, dist(`exclusive-${name}`), "status", "smoke"], {
    dir,
    env: { ...env, BUN_JSC_structureHeapSizeInKB: "1" },
  }).result;
  expect(unable).toMatchObject({ status: 71, stdout: "" });
  expect(unable.stderr).toMatch(/^exclusive: cannot run here: [^\n]+\n$/);
  const status = await start("status", "smoke", "--json").result;
  expect(JSON.parse(status.stdout)).toMatchObject({
    state: "held",
    holder: { pid: holder.pid, ...(!emulated && { alive: true }) },
  });
  await using waiter = start("run", "--wait", "smoke", "--", "env", ...clean, "echo", "my turn");
  holder.kill("SIGTERM");
  expect(await holder.result).toMatchObject({ signal: "SIGTERM" });
  expect(await waiter.result).toMatchObject({ status: 0, stdout: "my turn\n" });
  expect(dir.list()).toEqual([]);
}

const here = platform() === "linux" && arch() === "x64";

describe.if(here)("run on linux-x64", () => {
  test("linux-x64", () => smoke("linux-x64"), 60_000);

  const SYSROOT = "/usr/aarch64-linux-gnu";
  const qemu =
    required("qemu-aarch64-static", "qemu-user-static") &&
    required(`${SYSROOT}/lib/libstdc++.so.6`, "libstdc++6-arm64-cross");
  test.if(qemu)(
    "linux-arm64, by qemu",
    () => smoke("linux-arm64", { prefix: ["qemu-aarch64-static", "-L", SYSROOT], emulated: true }),
    120_000,
  );

  const musl = required("/lib/ld-musl-x86_64.so.1", "musl") && required("gcc", "gcc");
  test.if(musl)(
    "linux-x64-musl, by musl's loader and this machine's libstdc++",
    async () => {
      using libraries = new TempDir();
      for (const library of ["libstdc++.so.6", "libgcc_s.so.1"]) {
        const found = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64"].find((dir) =>
          existsSync(`${dir}/${library}`),
        );
        copyFileSync(`${found}/${library}`, libraries.file(library));
      }
      // Debian's libraries also name the loader of glibc: any loadable file can take its place.
      const shim = libraries.file("ld-linux-x86-64.so.2");
      const made = await command([
        "gcc",
        "-shared",
        "-fPIC",
        "-nostdlib",
        "-o",
        shim,
        "test/fixtures/musl-shim.c",
      ]);
      expect(made).toMatchObject({ status: 0, stderr: "" });
      await smoke("linux-x64-musl", { env: { LD_PRELOAD: shim, LD_LIBRARY_PATH: libraries.path } });
    },
    60_000,
  );
});
