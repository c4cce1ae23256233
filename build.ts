/**
 * Builds `dist/exclusive`, the binary for this machine; with `--all` one for each target, `dist/exclusive-<target>`,
 * and their `dist/SHA256SUMS`; with `--lib` `dist/lib`, what the npm package holds.
 */
import { rename, rm } from "node:fs/promises";
import { patchLinuxBinary } from "./build/patch.ts";
import { version } from "./package.json";

/** The binaries of a release, and the Bun that each is made with: fetched by Bun from the npm registry when first needed. */
const TARGETS = {
  "linux-x64": "bun-linux-x64-baseline",
  "linux-x64-musl": "bun-linux-x64-baseline-musl",
  "linux-arm64": "bun-linux-arm64",
  "linux-arm64-musl": "bun-linux-arm64-musl",
  "macos-x64": "bun-darwin-x64-baseline",
  "macos-arm64": "bun-darwin-arm64",
} as const;

/**
 * Multiplier for JavaScriptCore's tier-up thresholds: `run` ends before compiled code pays off, and the compiler threads
 * would cost a third of its time and memory. `dispatch.ts` resets it for commands that live longer.
 */
const NO_COMPILER = 100_000;

if (process.argv.includes("--lib")) await buildLibrary();
else if (process.argv.includes("--all")) await buildRelease();
else await buildBinary("dist/exclusive");

async function buildRelease(): Promise<void> {
  let sums = "";
  for (const [name, target] of Object.entries(TARGETS)) {
    const file = `exclusive-${name}`;
    await buildBinary(`dist/${file}`, target);
    const hash = new Bun.CryptoHasher("sha256").update(await Bun.file(`dist/${file}`).bytes()).digest("hex");
    sums += `${hash}  ${file}\n`; // as sha256sum(1) checks it
  }
  await Bun.write("dist/SHA256SUMS", sums);
}

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
}
