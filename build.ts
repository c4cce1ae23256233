/**
 * Builds `dist/exclusive`, the binary for this machine. Options:
 *
 * - `--all`: one for each target, `dist/exclusive-<target>`, and their `dist/SHA256SUMS`;
 * - `--lib`: `dist/lib`, the library;
 * - `--npm`: what is published to npm, `dist/npm/`, of the binaries of `--all` and `dist/lib`;
 * - `--archives`: of the same binaries, `.tar.gz` and `.tar.zst`, and `install.sh`;
 * - `--packages`: of the same, for Linux with glibc, `.deb` and `.rpm`, and the formula for Homebrew;
 * - `--target NAME`, again and again: only these; `--out DIR` instead of `dist`, but for `dist/lib`.
 */
import { chmod, copyFile, rename, rm } from "node:fs/promises";
import { parseArgs } from "node:util";
import { buildArchives } from "./build/archive.ts";
import { buildNpm } from "./build/npm.ts";
import { buildPackages } from "./build/packages.ts";
import { patchLinuxBinary } from "./build/patch.ts";
import { TARGETS, type TargetName } from "./build/targets.ts";
import { writeSums } from "./build/tree.ts";
import { engines, version } from "./package.json";

const { values: options } = parseArgs({
  options: {
    all: { type: "boolean" },
    lib: { type: "boolean" },
    npm: { type: "boolean" },
    archives: { type: "boolean" },
    packages: { type: "boolean" },
    target: { type: "string", multiple: true, default: Object.keys(TARGETS) },
    out: { type: "string", default: "dist" },
  },
});
const { out } = options;
const targets = options.target as TargetName[];
process.umask(0o022); // what is made is for everybody

/**
 * Multiplier for JavaScriptCore's tier-up thresholds: `run` ends before compiled code pays off, and the compiler threads
 * would cost a third of its time and memory. `dispatch.ts` resets it for commands that live longer.
 */
const NO_COMPILER = 100_000;

const { lib, all, npm, archives, packages } = options;
if (lib || npm) await buildLibrary();
if (all) for (const name of targets) await buildBinary(`${out}/exclusive-${name}`, TARGETS[name].bun);
if (npm) await buildNpm(out, targets);
if (archives) await buildArchives(out, targets);
if (packages) await buildPackages(out, targets);
if (all || archives || packages) await writeSums(out);
if (!lib && !all && !npm && !archives && !packages) await buildBinary(`${out}/exclusive`);

/** The binary takes nothing from the directory it is called in: no `.env`, no `bunfig.toml`. */
async function buildBinary(outfile: string, target?: Bun.Build.CompileTarget): Promise<void> {
  const unfinished = `${outfile}.tmp`;
  await Bun.build({
    entrypoints: ["src/command/main.ts"],
    target: "bun",
    minify: true,
    define: {
      BUILD_VERSION: JSON.stringify(version),
      BUILD_COMMIT: JSON.stringify(commit()),
      BUILD_LIBC: JSON.stringify(libcOf(target)),
      BUILD_MANUAL: JSON.stringify(await Bun.file("docs/exclusive.1").text()),
    },
    bytecode: true,
    format: "esm",
    splitting: true, // code that `run` does not use is not even read
    compile: {
      outfile: unfinished,
      autoloadDotenv: false,
      autoloadBunfig: false,
      // With an option baked in, Bun starts in a current directory that was deleted; without one it ends with status 1.
      execArgv: ["--no-warnings"],
      jitPolicy: NO_COMPILER,
      ...(target && { target }),
    },
  });
  if (!target?.includes("darwin")) await patchLinuxBinary(unfinished);
  await rename(unfinished, outfile); // over a binary that may be running
}

/** The C library that a binary is linked with: see `src/os/libc.ts`. */
function libcOf(target: string | undefined): "glibc" | "musl" {
  if (target !== undefined) return target.endsWith("-musl") ? "musl" : "glibc";
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return report.header?.glibcVersionRuntime === undefined ? "musl" : "glibc";
}

/** The commit that is built, marked where files differ from it; empty where this is no clone. */
function commit(): string {
  const git = (...args: string[]) => {
    try {
      return Bun.spawnSync(["git", ...args], { cwd: import.meta.dir, stderr: "ignore" })
        .stdout.toString()
        .trim();
    } catch {
      return ""; // no git
    }
  };
  // Inside another project's clone, as a package unpacked there, it would be that project's commit.
  if (git("rev-parse", "--show-cdup", "--is-inside-work-tree") !== "true") return "";
  return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*");
}

/** Types and JavaScript from tsc: file by file, so that a stack trace names the files of `src/`. */
async function buildLibrary(): Promise<void> {
  await rm("dist/lib", { recursive: true, force: true });
  const tsc = Bun.spawnSync(["node_modules/.bin/tsc", "--project", "tsconfig.build.json"], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (!tsc.success) process.exit(1);
  // Files that are imported as text.
  for (const file of new Bun.Glob("command/completions/*.{bash,zsh,fish}").scanSync("src"))
    await Bun.write(`dist/lib/${file}`, Bun.file(`src/${file}`));
  await copyFile("build/launcher.sh", "dist/lib/exclusive");
  await chmod("dist/lib/exclusive", 0o755);
  await writeRefusal();
}

/**
 * What runtimes other than Bun import. It has the library's names: else a script that imports one would end with the
 * runtime's own complaint, before this sentence.
 */
async function writeRefusal(): Promise<void> {
  const names = Object.keys(await import(`${import.meta.dir}/dist/lib/index.js`)).join(", ");
  const sentence =
    `exclusiveprocess needs Bun ${engines.bun.slice(2)} or later (https://bun.com): run this script with bun; ` +
    "the command works without it: npx exclusiveprocess run NAME -- COMMAND";
  const text = `const needsBun = new Error(${JSON.stringify(sentence)});
needsBun.stack = needsBun.message;
throw needsBun;
let ${names};
export { ${names} };
`;
  await Bun.write("dist/lib/needs-bun.js", text);
}
