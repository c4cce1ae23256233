/** What is published to npm, installed from a registry of this machine's, and run without Bun. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { buildNpm, platformPackage } from "../build/npm.ts";
import { TARGETS, type TargetName } from "../build/targets.ts";
import manifest from "../package.json";
import { packedLibrary } from "./support/package.ts";
import { binary, root } from "./support/paths.ts";
import { command, Process, type StartOptions } from "./support/process.ts";
import { Registry } from "./support/registry.ts";
import { here, prepareRelease } from "./support/release.ts";
import { required } from "./support/required.ts";
import { TempDir } from "./support/temp-dir.ts";

const home = new TempDir();
const locks = new TempDir();
const published = home.file("out/npm");
const launcher = `${published}/exclusiveprocess/dist/lib/exclusive`;
const targets = Object.keys(TARGETS) as TargetName[];

const registry = new Registry();
let library: string;
/** The files of each package, by its name. */
const files = new Map<string, string[]>();
afterAll(() => {
  registry[Symbol.dispose]();
  home[Symbol.dispose]();
  locks[Symbol.dispose]();
});

/** A directory for PATH with these programs alone: Bun is not among them. */
function pathWith(...programs: string[]): string {
  const dir = home.file(`path-${programs.length}`);
  mkdirSync(dir, { recursive: true });
  for (const program of programs) {
    const found = Bun.which(program, { PATH: "/usr/bin:/bin:/usr/local/bin" }) ?? Bun.which(program);
    try {
      symlinkSync(found!, `${dir}/${program}`);
    } catch {} // it is there
  }
  return dir;
}
const UNIX = ["sh", "readlink", "uname", "echo", "kill", "sleep", "env"];
const NODE = [...UNIX, "node", "sed", "dirname", "cygpath"];

const environment: Record<string, string | undefined> = {
  HOME: home.path,
  npm_config_registry: registry.url,
  npm_config_cache: home.file("npm"),
  npm_config_update_notifier: "false",
  BUN_INSTALL_CACHE_DIR: home.file("bun"),
  XDG_DATA_HOME: home.file("data"),
  XDG_CACHE_HOME: home.file("cache"),
  CI: undefined, // Yarn would refuse to write its lockfile
};

const run = (argv: string[], options: StartOptions = {}) =>
  command(argv, { dir: locks, cwd: home.path, ...options, env: { ...environment, ...options.env } });

/** A program for a target: it says which one it is, or is the real one of this machine. */
function writeBinary(target: TargetName): void {
  const file = home.file(`out/exclusive-${target}`);
  const does = target === here ? `exec ${Bun.$.escape(binary)} "$@"` : `echo ${target}`;
  writeFileSync(file, `#!/bin/sh\n${does}\n`, { mode: 0o755 });
}

beforeAll(async () => {
  process.chdir(root);
  library = await packedLibrary(home);
  mkdirSync(home.file("out"));
  for (const target of targets) writeBinary(target);
  await buildNpm(home.file("out"), targets, library);
  for (const target of targets)
    files.set(platformPackage(target), await registry.publish(`${published}/${target}`));
  files.set("exclusiveprocess", await registry.publish(`${published}/exclusiveprocess`));
  for (const name of Object.keys(manifest.dependencies)) await registry.publishDependency(name);
}, 120_000);

describe("the packages", () => {
  const json = (name: string) => JSON.parse(readFileSync(`${published}/${name}/package.json`, "utf8"));

  test.each(targets)("%s holds its binary, and npm installs it on its machines alone", (target) => {
    expect(files.get(platformPackage(target))).toEqual(
      ["LICENSE", "README.md", "bin/exclusive", "package.json"].map((file) => `package/${file}`),
    );
    const { os, cpu, libc, version, repository } = json(target);
    expect({ os: os[0], cpu: cpu[0], ...(libc && { libc: libc[0] }) }).toEqual(TARGETS[target].npm);
    expect({ version, repository }).toEqual({
      version: manifest.version,
      repository: manifest.repository,
    });
  });

  test("exclusiveprocess depends on all six in its own version, and on nothing else that is not in the repository's", () => {
    const { optionalDependencies, dependencies, bin, devDependencies, scripts } = json("exclusiveprocess");
    expect(Object.keys(optionalDependencies)).toEqual(targets.map(platformPackage));
    expect(new Set(Object.values(optionalDependencies))).toEqual(new Set([manifest.version]));
    expect(dependencies).toEqual(manifest.dependencies);
    expect({ devDependencies, scripts }).toEqual({ devDependencies: undefined, scripts: undefined });
    expect(Object.keys(bin)).toEqual(["exclusive"]); // one: `npx exclusiveprocess` runs it
    expect(files.get("exclusiveprocess")).toContain("package/dist/lib/exclusive");
  });

  test("publint and attw find nothing; it is for ES modules alone, on purpose", async () => {
    const directory = `${published}/exclusiveprocess`;
    const publint = await run([process.execPath, `${root}/node_modules/.bin/publint`, "--strict", directory]);
    expect(publint).toMatchObject({ status: 0, stderr: "" });
    const tarball = home.file("checked.tgz");
    await run([process.execPath, "pm", "pack", "--quiet", "--ignore-scripts", "--filename", tarball], {
      cwd: directory,
    });
    const attw = `${root}/node_modules/.bin/attw`;
    expect(
      await run([process.execPath, attw, tarball, "--profile", "esm-only", "--format", "ascii"]),
    ).toMatchObject({
      status: 0,
    });
  }, 120_000);
});

describe("an installed command", () => {
  const tool = (file: string) => ["node", `${root}/node_modules/${file}`];
  const yarn = tool("@yarnpkg/cli-dist/bin/yarn.js");
  const yarnSettings = `npmRegistryServer: "${registry.url}"
unsafeHttpWhitelist: ["127.0.0.1"]
enableTelemetry: false
enableGlobalCache: false
`;
  /** How a project gets the package, and how its command is called. */
  const WAYS: Record<string, { files?: Record<string, string>; install?: string[]; call: string[] }> = {
    "npm install": {
      install: ["npm", "install", "exclusiveprocess"],
      call: ["node_modules/.bin/exclusive"],
    },
    "npm install --global": {
      install: ["npm", "install", "--global", "--prefix", "prefix", "exclusiveprocess"],
      call: ["prefix/bin/exclusive"],
    },
    npx: { call: ["npx", "--yes", "exclusiveprocess"] },
    bunx: { call: [process.execPath, "x", "exclusiveprocess"] },
    "bun add": {
      install: [process.execPath, "add", "exclusiveprocess"],
      call: [process.execPath, "run", "exclusive"],
    },
    pnpm: {
      install: [...tool("pnpm/bin/pnpm.cjs"), "add", "exclusiveprocess"],
      call: ["node_modules/.bin/exclusive"],
    },
    "yarn with node_modules": {
      files: { ".yarnrc.yml": `${yarnSettings}nodeLinker: node-modules\n`, "yarn.lock": "" },
      install: [...yarn, "add", "exclusiveprocess"],
      call: [...yarn, "exclusive"],
    },
    "yarn with Plug'n'Play": {
      files: { ".yarnrc.yml": yarnSettings, "yarn.lock": "" },
      install: [...yarn, "add", "exclusiveprocess"],
      call: [...yarn, "exclusive"],
    },
  };

  const node = Bun.which("node") !== null && Bun.which("npm") !== null;
  for (const [way, { files = {}, install, call }] of Object.entries(WAYS)) {
    test.if(node)(
      `${way}: one line installs, one line locks`,
      async () => {
        const cwd = home.file(`project-${way.replaceAll(/\W/g, "-")}`);
        mkdirSync(cwd);
        const all = {
          "package.json": '{"name":"project"}',
          ".npmrc": `registry=${registry.url}\n`,
          ...files,
        };
        for (const [file, text] of Object.entries(all)) writeFileSync(`${cwd}/${file}`, text);
        if (install) {
          const { status, stdout, stderr } = await run(install, { cwd });
          expect({ status, output: status === 0 ? "" : stdout + stderr }).toEqual({ status: 0, output: "" });
        }
        const first = await run([...call, "run", "first", "--", "sh", "-c", "echo locked; exit 6"], { cwd });
        expect(first).toMatchObject({ status: 6, stdout: "locked\n" });
      },
      60_000,
    );
  }

  test.if(node)("under Node, importing it throws one sentence, whatever is imported from it", async () => {
    const cwd = home.file("project-npm-install");
    const imports = [
      'import "exclusiveprocess";',
      'import { exclusive, Lock } from "exclusiveprocess";',
      'await import("exclusiveprocess");',
    ];
    for (const [i, text] of imports.entries()) {
      writeFileSync(`${cwd}/import-${i}.mjs`, text);
      const { status, stderr } = await run(["node", `import-${i}.mjs`], { cwd });
      expect(status).toBe(1);
      expect(stderr).toMatch(/^.*exclusiveprocess needs Bun 1\.4\.5 or later .*: npx exclusiveprocess .*$/m);
      expect(stderr).not.toMatch(/SyntaxError|ERR_|^ +at /m);
    }
    writeFileSync(`${cwd}/bun.ts`, 'import { Lock } from "exclusiveprocess"; console.log(Lock.name);');
    expect(await run([process.execPath, "bun.ts"], { cwd })).toMatchObject({ status: 0, stdout: "Lock\n" });
  });
});

describe("the launcher", () => {
  /** As npm lays it out, with these platform packages. */
  function project(name: string, ...installed: TargetName[]): string {
    const modules = home.file(`${name}/node_modules`);
    cpSync(`${published}/exclusiveprocess`, `${modules}/exclusiveprocess`, { recursive: true });
    for (const target of installed)
      cpSync(`${published}/${target}`, `${modules}/${platformPackage(target)}`, { recursive: true });
    for (const name of Object.keys(manifest.dependencies))
      symlinkSync(`${root}/node_modules/${name}`, `${modules}/${name}`);
    mkdirSync(`${modules}/.bin`);
    symlinkSync("../exclusiveprocess/dist/lib/exclusive", `${modules}/.bin/exclusive`);
    return `${modules}/.bin/exclusive`;
  }

  test("becomes the binary: no process stays, and exit status and signals are its own", async () => {
    const exclusive = project("becomes", here);
    await using holder = new Process([exclusive, "run", "t", "--", "sh", "-c", "echo begun; exec sleep 60"], {
      dir: locks,
    });
    await holder.says("begun");
    const status = await run([exclusive, "status", "t", "--json"]);
    expect(JSON.parse(status.stdout).holder.pid).toBe(holder.pid);
    expect(await run([exclusive, "run", "t", "--", "true"])).toMatchObject({ status: 75, stdout: "" });
    holder.kill("SIGTERM");
    expect(await holder.result).toMatchObject({ signal: "SIGTERM" });
    expect(await run([exclusive, "run", "t", "--", "sh", "-c", "exit 9"])).toMatchObject({ status: 9 });
  });

  test("passes on arguments, input and descriptors as they are", async () => {
    const exclusive = project("arguments", here);
    const odd = ["", "a b", "*", "$x", "\\", "'", "--", "\n"];
    const { stdout } = await run([exclusive, "run", "t", "--", "printf", "<%s>", ...odd]);
    expect(stdout).toBe(odd.map((argument) => `<${argument}>`).join(""));
    const script = `"$0" run t -- sh -c 'cat; cat <&7' 7<<E\nseven\nE`;
    const both = await run(["bash", "-c", script, exclusive], { stdin: "zero\n" });
    expect(both.stdout).toBe("zero\nseven\n");
  });

  const node = Bun.which("node");
  test.each([...(node ? [["node", node]] : []), ["bun", process.execPath]])(
    "works as a script of %s: exit status, and a signal that is sent to it",
    async (_, runtime) => {
      const exclusive = project(`script-${_}`, here);
      expect(await run([runtime, exclusive, "run", "t", "--", "sh", "-c", "exit 9"])).toMatchObject({
        status: 9,
      });
      const holding = ["run", "t", "--", "sh", "-c", "echo begun; exec sleep 60"];
      await using holder = new Process([runtime, exclusive, ...holding], { dir: locks });
      await holder.says("begun");
      holder.kill("SIGTERM");
      expect(await holder.result).toMatchObject({ signal: "SIGTERM" });
      expect(await run([exclusive, "status", "t"])).toMatchObject({ status: 3 });
    },
  );

  test("without a binary it runs on the Bun that is there", async () => {
    const exclusive = project("on-bun");
    const bin = pathWith(...UNIX, "true");
    symlinkSync(process.execPath, `${dirname(exclusive)}/bun`);
    const { status, stdout } = await run([exclusive, "run", "t", "--", "echo", "locked"], {
      env: { PATH: bin },
    });
    expect({ status, stdout }).toEqual({ status: 0, stdout: "locked\n" });
    expect(await run([process.execPath, exclusive, "run", "t", "--", "sh", "-c", "exit 8"])).toMatchObject({
      status: 8,
    });
  });

  test("without a binary and without Bun it says what to do, with status 71", async () => {
    const exclusive = project("nothing");
    const without = { env: { PATH: pathWith(...NODE) } };
    for (const argv of [[exclusive], ...(node ? [["node", exclusive]] : [])]) {
      const { status, stdout, stderr } = await run([...argv, "run", "t", "--", "echo", "no"], without);
      expect({ status, stdout }).toEqual({ status: 71, stdout: "" });
      expect(stderr).toMatch(/^exclusive: cannot run here: .*install exclusiveprocess again.*\n$/);
    }
  });

  /** The launcher in a system that is laid out like this: what it looks at is below a directory of its own. */
  async function choice(name: string, machine: string, system: string[], installed: TargetName[]) {
    const exclusive = project(name, ...installed.filter((target) => target !== here));
    const modules = `${exclusive.slice(0, -"/.bin/exclusive".length)}`;
    if (installed.includes(here)) {
      cpSync(`${published}/${here}`, `${modules}/${platformPackage(here)}`, { recursive: true });
      writeFileSync(`${modules}/${platformPackage(here)}/bin/exclusive`, `#!/bin/sh\necho ${here}\n`);
    }
    const text = readFileSync(launcher, "utf8").replaceAll(
      /(?<=[ =])\/(lib64|lib|etc|usr)\//g,
      `${home.file(name)}/$1/`,
    );
    writeFileSync(`${modules}/exclusiveprocess/dist/lib/exclusive`, text);
    for (const file of system) {
      mkdirSync(home.file(`${name}/${file}/..`), { recursive: true });
      writeFileSync(home.file(`${name}/${file}`), "");
    }
    const bin = home.file(`${name}/bin`);
    cpSync(pathWith(...UNIX), bin, { recursive: true, verbatimSymlinks: true });
    Bun.spawnSync(["rm", `${bin}/uname`]);
    writeFileSync(`${bin}/uname`, `#!/bin/sh\necho ${machine}\n`, { mode: 0o755 });
    const { status, stdout, stderr } = await run([exclusive, "--version"], {
      env: { PATH: bin, LD_LIBRARY_PATH: undefined, LD_PRELOAD: undefined },
    });
    return status === 0 ? stdout.trim() : `${status} ${stderr.trim()}`;
  }
  const GLIBC = "lib64/ld-linux-x86-64.so.2";
  const MUSL = "lib/ld-musl-x86_64.so.1";
  const ALPINE = "etc/alpine-release";
  const CXX = "usr/lib/libstdc++.so.6";
  const both: TargetName[] = ["linux-x64", "linux-x64-musl"];

  test.each<[string, string, string[], TargetName[], string]>([
    ["glibc", "Linux x86_64", [GLIBC], both, "linux-x64"],
    ["glibc with musl's loader for development", "Linux x86_64", [GLIBC, MUSL], both, "linux-x64"],
    ["Alpine", "Linux x86_64", [MUSL, ALPINE, CXX], both, "linux-x64-musl"],
    [
      "Alpine with a loader for glibc's programs",
      "Linux x86_64",
      [MUSL, ALPINE, GLIBC, CXX],
      both,
      "linux-x64-musl",
    ],
    ["Void Linux with musl", "Linux x86_64", [MUSL, CXX], both, "linux-x64-musl"],
    ["arm64", "Linux aarch64", ["lib/ld-linux-aarch64.so.1"], targets, "linux-arm64"],
    ["arm64 with musl", "Linux aarch64", ["lib/ld-musl-aarch64.so.1", CXX], targets, "linux-arm64-musl"],
    ["a Mac", "Darwin arm64", [], targets, "macos-arm64"],
    ["a Mac with Rosetta", "Darwin arm64", [], ["macos-x64"], "macos-x64"],
    ["an older Mac", "Darwin x86_64", [], targets, "macos-x64"],
  ])("takes the binary that fits: %s", async (name, machine, system, installed, expected) => {
    expect(await choice(name.replaceAll(/\W/g, "-"), machine, system, installed)).toBe(expected);
  });

  test.each<[string, string, string[], string]>([
    ["a machine without a binary", "Linux riscv64", [], "there is no binary for Linux riscv64, and no Bun"],
    [
      "a system without a known C library",
      "Linux x86_64",
      [],
      "there is no binary for Linux x86_64, and no Bun",
    ],
    [
      "Alpine as it comes",
      "Linux x86_64",
      [MUSL, ALPINE],
      "libstdc++.so.6 is not installed: apk add libstdc++",
    ],
  ])("refuses with 71: %s", async (name, machine, system, words) => {
    const refusal = await choice(name.replaceAll(/\W/g, "-"), machine, system, targets);
    expect(refusal).toStartWith(`71 exclusive: cannot run here: ${words}`);
  });

  test.if(required("shellcheck", "shellcheck"))("shellcheck finds nothing in its shell part", async () => {
    const [shell] = readFileSync(`${root}/build/launcher.sh`, "utf8").split("\n*/\n");
    expect(await run(["shellcheck", "-s", "sh", "-"], { stdin: `${shell}\n` })).toMatchObject({
      status: 0,
      stdout: "",
    });
  });
});

test.if(Bun.which("npm") !== null)(
  "the real binary: npm in an empty directory, and the first lock",
  async () => {
    using real = new Registry();
    const out = home.file("real");
    await prepareRelease(out);
    await buildNpm(out, [here], library);
    await real.publish(`${out}/npm/${here}`);
    await real.publish(`${out}/npm/exclusiveprocess`);
    for (const name of Object.keys(manifest.dependencies)) await real.publishDependency(name);
    const cwd = home.file("empty");
    mkdirSync(cwd);
    const env = { npm_config_registry: real.url, npm_config_cache: home.file("npm-real") };
    const begun = performance.now();
    const installed = await run(["npm", "install", "exclusiveprocess"], { cwd, env });
    expect({ status: installed.status, stderr: installed.stderr }).toEqual({ status: 0, stderr: "" });
    const first = await run(["node_modules/.bin/exclusive", "run", "hello", "--", "echo", "locked"], {
      cwd,
      env,
    });
    console.log(`npm: ${((performance.now() - begun) / 1000).toFixed(1)} s`);
    expect(first).toMatchObject({ status: 0, stdout: "locked\n" });
  },
  120_000,
);
