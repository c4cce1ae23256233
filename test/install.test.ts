/** The archives of a release, and `install.sh`, from a mirror and from a directory. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { buildArchives } from "../build/archive.ts";
import { TREE, writeSums } from "../build/tree.ts";
import { version } from "../package.json";
import { root } from "./support/paths.ts";
import { command, Process, type StartOptions } from "./support/process.ts";
import { alsoAt, here, prepareRelease } from "./support/release.ts";
import { required } from "./support/required.ts";
import { TempDir } from "./support/temp-dir.ts";

const home = new TempDir();
const locks = new TempDir();
const out = home.file("release");
const archive = `exclusive-${version}-${here}.tar.gz`;
const installer = `${out}/install.sh`;
const mirror = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch: async (request) => {
    const file = Bun.file(out + new URL(request.url).pathname);
    return (await file.exists()) ? new Response(file) : new Response("no", { status: 404 });
  },
});
afterAll(() => {
  mirror.stop(true);
  home[Symbol.dispose]();
  locks[Symbol.dispose]();
});

const run = (argv: string[], options: StartOptions = {}) =>
  command(argv, { dir: locks, cwd: home.path, ...options, env: { HOME: home.path, ...options.env } });

const install = (...args: string[]) => run(["sh", installer, ...args]);

/** The files below a directory, with the directories that are empty. */
const below = (directory: string): string[] =>
  existsSync(directory)
    ? [...new Bun.Glob("**/*").scanSync({ cwd: directory, onlyFiles: false, dot: true })]
        .filter((path) => !statSync(`${directory}/${path}`).isDirectory())
        .sort()
    : [];

const TREE_FILES = Object.keys(TREE).sort();

/** A mirror of its own, whose sums or archive a test spoils. */
function ownMirror(name: string): string {
  const directory = home.file(name);
  mkdirSync(directory);
  alsoAt(`${out}/${archive}`, directory);
  writeFileSync(`${directory}/SHA256SUMS`, readFileSync(`${out}/SHA256SUMS`));
  return directory;
}

beforeAll(async () => {
  process.chdir(root);
  await prepareRelease(out);
  await buildArchives(out, [here], 1);
  await writeSums(out);
}, 120_000);

test("an archive holds binary, manual, completions and licence, for any prefix, and says nothing of who built it", async () => {
  const { stdout } = await run(["tar", "-tvzf", `${out}/${archive}`]);
  const lines = stdout.trim().split("\n");
  const top = `exclusive-${version}-${here}/`;
  const names = lines.map((line) => line.slice(line.indexOf(top) + top.length));
  expect(names.filter((name) => name !== "" && !name.endsWith("/")).sort()).toEqual(TREE_FILES);
  for (const line of lines) expect(line).toMatch(/^(d|-)rwxr-xr-x 0\/0 |^-rw-r--r-- 0\/0 /);
});

test("a second build gives the same archives", async () => {
  const again = home.file("again");
  mkdirSync(again);
  // A small file takes the binary's place: the sums of the real one are compared in targets.test.ts.
  for (const directory of [`${again}/a`, `${again}/b`]) {
    mkdirSync(directory);
    writeFileSync(`${directory}/exclusive-${here}`, "binary", { mode: 0o700 });
    await buildArchives(directory, [here], 1);
    await Bun.sleep(1100); // tar and gzip count in seconds
  }
  const bytes = (directory: string) => readFileSync(`${again}/${directory}/${archive}`).toString("base64");
  expect(bytes("a")).toBe(bytes("b"));
});

describe("install.sh", () => {
  test("installs from a mirror, below a prefix; the first lock is one line; --uninstall leaves nothing", async () => {
    const prefix = home.file("from mirror");
    const begun = performance.now();
    const { status, stdout, stderr } = await install("--from", mirror.url.origin, "--prefix", prefix);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const exclusive = `${prefix}/bin/exclusive`;
    expect(await run([exclusive, "run", "hello", "--", "echo", "locked"])).toMatchObject({
      status: 0,
      stdout: "locked\n",
    });
    console.log(`install.sh: ${((performance.now() - begun) / 1000).toFixed(1)} s`);
    expect(stdout).toContain(`is installed as ${exclusive}\n`);
    expect(stdout).toContain(`${prefix}/bin is not in PATH\n`);
    expect(stdout).toContain(`to remove it: sh install.sh --uninstall --prefix '${prefix}'\n`);
    expect(below(prefix)).toEqual(TREE_FILES);
    expect(await install("--uninstall", "--prefix", prefix)).toMatchObject({ status: 0, stderr: "" });
    expect(below(prefix)).toEqual([]);
  }, 60_000);

  test.each([
    ["a directory", () => out],
    ["a file:// URL", () => `file://${out}`],
  ])(
    "installs from %s",
    async (name, from) => {
      const prefix = home.file(name.replaceAll(/\W/g, "-"));
      const { status, stderr } = await install("--from", from(), "--prefix", prefix, "--target", here);
      expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
      expect(below(prefix)).toEqual(TREE_FILES);
    },
    60_000,
  );

  const shells: [string, string[], boolean][] = [
    ["dash", ["dash"], required("dash", "dash")],
    ["bash --posix", ["bash", "--posix"], required("bash", "bash")],
    ["busybox, with its tools alone", ["busybox", "sh"], required("busybox", "busybox-static")],
  ];
  for (const [name, shell, there] of shells) {
    test.if(there)(
      `runs in ${name}, and replaces a binary that is running`,
      async () => {
        const prefix = home.file(name.replaceAll(/\W/g, "-"));
        const tools = home.file("busybox-tools");
        const path = name.startsWith("busybox") ? tools : process.env.PATH;
        if (name.startsWith("busybox")) {
          mkdirSync(tools);
          for (const applet of "id uname mktemp awk sha256sum tar gzip cp mv rm rmdir mkdir cat wget sh".split(
            " ",
          ))
            symlinkSync(Bun.which("busybox")!, `${tools}/${applet}`);
        }
        const script = [...shell.map((part) => Bun.which(part) ?? part), installer];
        const args = ["--from", mirror.url.origin, "--prefix", prefix];
        const first = await run([...script, ...args], { env: { PATH: path } });
        expect({ status: first.status, stderr: first.stderr }).toEqual({ status: 0, stderr: "" });
        await using holder = new Process(
          [`${prefix}/bin/exclusive`, "run", name, "--", "sh", "-c", "echo begun; exec sleep 60"],
          { dir: locks },
        );
        await holder.says("begun");
        expect(await run([...script, ...args], { env: { PATH: path } })).toMatchObject({ status: 0 });
        expect(await run([`${prefix}/bin/exclusive`, "run", name, "--", "true"])).toMatchObject({
          status: 75,
        });
        expect(below(prefix)).toEqual(TREE_FILES);
      },
      60_000,
    );
  }

  test("refuses an archive whose sum is wrong, says so, and leaves nothing behind", async () => {
    const from = ownMirror("wrong-sum");
    writeFileSync(`${from}/SHA256SUMS`, `${"0".repeat(64)}  ${archive}\n`);
    const before = home.list();
    const { status, stdout, stderr } = await install("--from", from, "--prefix", home.file("refused"));
    expect({ status, stdout }).toEqual({ status: 65, stdout: "" });
    expect(stderr).toMatch(
      /^install\.sh: the sum of exclusive-\S+ is wrong: [0-9a-f]{64} instead of 0{64}; nothing was installed\n$/,
    );
    expect(home.list()).toEqual(before);
  }, 60_000);

  test.each<[string, (from: string) => void, number, RegExp]>([
    [
      "sums without the archive's",
      (from) => writeFileSync(`${from}/SHA256SUMS`, ""),
      65,
      /does not name exclusive-/,
    ],
    [
      "an archive that is none, with the right sum",
      (from) => {
        Bun.spawnSync(["rm", `${from}/${archive}`]);
        writeFileSync(`${from}/${archive}`, "no archive");
        const sum = new Bun.CryptoHasher("sha256").update("no archive").digest("hex");
        writeFileSync(`${from}/SHA256SUMS`, `${sum}  ${archive}\n`);
      },
      65,
      /cannot be unpacked/,
    ],
    ["no archive", (from) => Bun.spawnSync(["rm", `${from}/${archive}`]), 69, /cannot get .*tar\.gz/],
  ])("refuses %s, and leaves what is installed as it is", async (name, spoil, expected, words) => {
    const from = ownMirror(name.replaceAll(/\W/g, "-"));
    const prefix = `${from}/prefix`;
    mkdirSync(`${prefix}/bin`, { recursive: true });
    writeFileSync(`${prefix}/bin/exclusive`, "the version of before");
    spoil(from);
    const { status, stdout, stderr } = await install("--from", from, "--prefix", prefix);
    expect({ status, stdout }).toEqual({ status: expected, stdout: "" });
    expect(stderr).toMatch(words);
    expect(below(prefix)).toEqual(["bin/exclusive"]);
    expect(readFileSync(`${prefix}/bin/exclusive`, "utf8")).toBe("the version of before");
  });

  test("a binary that does not run here is not installed, and no directory stays that it made", async () => {
    const from = home.file("does-not-run");
    mkdirSync(from);
    writeFileSync(`${from}/exclusive-${here}`, "#!/bin/sh\nexit 127\n");
    await buildArchives(from, [here], 1);
    await writeSums(from);
    const prefix = home.file("stays/away");
    const { status, stdout, stderr } = await install("--from", from, "--prefix", prefix);
    expect({ status, stdout }).toEqual({ status: 71, stdout: "" });
    expect(stderr).toContain(`the binary for ${here} does not run here`);
    expect(existsSync(home.file("stays"))).toBe(false);
  });

  test.each([
    [["--prefix"], "--prefix needs a value"],
    [["--perfix", "/x"], "unknown option --perfix"],
  ])("refuses wrong usage %j with 64", async (args, words) => {
    const { status, stderr } = await install(...args);
    expect({ status, stderr }).toEqual({ status: 64, stderr: expect.stringContaining(words) });
  });

  test.if(required("shellcheck", "shellcheck"))("shellcheck finds nothing in it", async () => {
    const checked = await run(["shellcheck", "-s", "sh", `${root}/build/install.sh`]);
    expect(checked).toMatchObject({ status: 0, stdout: "" });
  });
});
