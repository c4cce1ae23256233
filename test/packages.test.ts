/** The packages for dpkg and rpm: installed, used and removed below a root of their own. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { buildPackages } from "../build/packages.ts";
import { TARGETS } from "../build/targets.ts";
import manifest from "../package.json";
import { binary, root } from "./support/paths.ts";
import { command, exclusive, type StartOptions } from "./support/process.ts";
import { here, prepareRelease } from "./support/release.ts";
import { required } from "./support/required.ts";
import { TempDir } from "./support/temp-dir.ts";

const { version } = manifest;
const home = new TempDir();
const locks = new TempDir();
const out = home.file("release");
afterAll(() => {
  home[Symbol.dispose]();
  locks[Symbol.dispose]();
});

const run = (argv: string[], options?: StartOptions) => command(argv, { dir: locks, ...options });
const packages = here.startsWith("linux") && required("dpkg-deb", "dpkg") && required("rpmbuild", "rpm");

/** The files below a directory. */
const below = (directory: string): string[] =>
  [...new Bun.Glob("**/*").scanSync({ cwd: directory, dot: true })].sort();

beforeAll(async () => {
  process.chdir(root);
  await prepareRelease(out);
  // The formula names these archives by their sums.
  for (const target of Object.keys(TARGETS)) {
    if (!target.endsWith("-musl")) writeFileSync(`${out}/exclusive-${version}-${target}.tar.gz`, target);
  }
  if (packages) await buildPackages(out, [here], 1);
}, 120_000);

/** What both have, where both formats have it. */
const COMMON = [
  "usr/bin/exclusive",
  "usr/lib/tmpfiles.d/exclusive.conf",
  "usr/share/bash-completion/completions/exclusive",
  "usr/share/doc/exclusive/copyright",
  "usr/share/fish/vendor_completions.d/exclusive.fish",
  "usr/share/man/man1/exclusive.1.gz",
];

/** One line locks; the binary is the very one that was built, so neither stripped nor changed. */
async function works(system: string): Promise<void> {
  const installed = `${system}/usr/bin/exclusive`;
  const { status, stdout } = await run([installed, "run", "hello", "--", "echo", "locked"]);
  expect({ status, stdout }).toEqual({ status: 0, stdout: "locked\n" });
  expect(readFileSync(installed).equals(readFileSync(binary))).toBe(true);
  expect(statSync(installed).mode & 0o7777).toBe(0o755);
}

describe.if(packages)("a package", () => {
  test("of Debian: one line installs, one line locks, one line removes all of it", async () => {
    const system = home.file("debian");
    const database = `${system}/var/lib/dpkg`;
    for (const directory of ["info", "updates", "triggers"])
      mkdirSync(`${database}/${directory}`, { recursive: true });
    writeFileSync(`${database}/status`, "");
    const dpkg = (...args: string[]) =>
      run([
        "dpkg",
        `--root=${system}`,
        "--force-not-root,depends,script-chrootless",
        "--log=/dev/null",
        ...args,
      ]);
    const begun = performance.now();
    const installed = await dpkg("--install", `${out}/exclusive-${version}-${here}.deb`);
    expect(installed).toMatchObject({ status: 0 });
    await works(system);
    console.log(`dpkg: ${((performance.now() - begun) / 1000).toFixed(1)} s`);
    expect(below(`${system}/usr`).map((file) => `usr/${file}`)).toEqual(
      [...COMMON, "usr/share/zsh/vendor-completions/_exclusive"].sort(),
    );
    const older = await run([
      "dpkg",
      "--compare-versions",
      `${version.replace("-", "~")}-1`,
      "lt",
      "1.0.0-1",
    ]);
    expect(older.status).toBe(0);
    expect(await dpkg("--purge", "exclusive")).toMatchObject({ status: 0 });
    expect(existsSync(`${system}/usr`) ? below(`${system}/usr`) : []).toEqual([]);
  }, 60_000);

  test.if(process.getuid?.() === 0)(
    "of rpm: one line installs, one line locks, one line removes all of it",
    async () => {
      const system = home.file("rpm");
      mkdirSync(system);
      const rpm = (...args: string[]) => run(["rpm", "--root", system, "--nodeps", ...args]);
      const installed = await rpm("--install", `${out}/exclusive-${version}-${here}.rpm`);
      expect(installed).toMatchObject({ status: 0 });
      await works(system);
      expect(
        below(`${system}/usr`)
          .map((file) => `usr/${file}`)
          .filter((file) => !file.includes("/rpm/")),
      ).toEqual([...COMMON, "usr/share/zsh/site-functions/_exclusive"].sort());
      expect(await rpm("--erase", "exclusive")).toMatchObject({ status: 0 });
      expect(existsSync(`${system}/usr/bin/exclusive`)).toBe(false);
      expect(existsSync(`${system}/usr/share/doc/exclusive`)).toBe(false);
    },
    60_000,
  );

  test("depends on nothing but the C library, and takes no other package's flock", async () => {
    const deb = `${out}/exclusive-${version}-${here}.deb`;
    const rpm = `${out}/exclusive-${version}-${here}.rpm`;
    expect((await run(["dpkg-deb", "--field", deb, "Depends"])).stdout).toBe("libc6\n");
    const { stdout } = await run(["rpm", "-qp", "--requires", rpm]);
    expect(stdout.split("\n").filter((line) => line && !line.startsWith("rpmlib("))).toEqual(["glibc"]);
    expect((await run(["rpm", "-qpl", rpm])).stdout).not.toContain("flock");
  });

  test.if(required("man", "man-db"))("has a manual page that man shows", async () => {
    const page = home.file("exclusive.1.gz");
    const deb = `${out}/exclusive-${version}-${here}.deb`;
    const tree = home.file("tree");
    expect(await run(["dpkg-deb", "--extract", deb, tree])).toMatchObject({ status: 0 });
    writeFileSync(page, readFileSync(`${tree}/usr/share/man/man1/exclusive.1.gz`));
    const shown = await run(["man", "-l", page], { env: { MANWIDTH: "80", LC_ALL: "C.UTF-8" } });
    expect(shown.stdout).toContain("EXIT STATUS");
  });
});

test.if(required("systemd-tmpfiles", "systemd"))(
  "its settings of tmpfiles.d keep lock files from the cleaner, however old they are",
  async () => {
    const system = home.file("tmpfiles");
    mkdirSync(`${system}/tmp`, { recursive: true });
    mkdirSync(`${system}/etc/tmpfiles.d`, { recursive: true });
    const kept = await exclusive(["run", "--keep", "--dir", `${system}/tmp`, "t", "--", "true"]);
    expect(kept).toMatchObject({ status: 0, stderr: "" });
    writeFileSync(`${system}/tmp/other`, "");
    for (const file of readdirSync(`${system}/tmp`)) lutimesSync(`${system}/tmp/${file}`, 1, 1);
    writeFileSync(`${system}/etc/tmpfiles.d/a.conf`, "d /tmp 1777 root root m:1d\n");
    writeFileSync(
      `${system}/etc/tmpfiles.d/exclusive.conf`,
      readFileSync(`${root}/build/tmpfiles.conf`, "utf8"),
    );
    const clean = () => run(["systemd-tmpfiles", "--clean", `--root=${system}`]);
    expect(await clean()).toMatchObject({ status: 0, stderr: "" });
    expect(readdirSync(`${system}/tmp`)).toEqual(["exclusive_t.lock"]);
    rmSync(`${system}/etc/tmpfiles.d/exclusive.conf`);
    expect(await clean()).toMatchObject({ status: 0, stderr: "" });
    expect(readdirSync(`${system}/tmp`)).toEqual([]);
  },
);

test.if(packages)("the formula for Homebrew has the sums of the archives", () => {
  const formula = readFileSync(`${out}/exclusive.rb`, "utf8");
  for (const target of ["macos-arm64", "macos-x64", "linux-arm64", "linux-x64"]) {
    const sum = new Bun.CryptoHasher("sha256").update(target).digest("hex");
    expect(formula).toContain(`/v${version}/exclusive-${version}-${target}.tar.gz"\n      sha256 "${sum}"`);
  }
});
