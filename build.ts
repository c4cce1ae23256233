/**
 * Builds `dist/exclusive`, the binary for this machine; with `--all` one for each target, `dist/exclusive-<target>`,
 * and their `dist/SHA256SUMS`; with `--lib` `dist/lib`, what the npm package holds.
 */
import { rename, rm } from "node:fs/promises";
import { version } from "./package.json";

/** What a release has, and the Bun that each is made with: fetched by Bun from the npm registry when first needed. */
const TARGETS = {
  "linux-x64": "bun-linux-x64-baseline",
  "linux-x64-musl": "bun-linux-x64-baseline-musl",
  "linux-arm64": "bun-linux-arm64",
  "linux-arm64-musl": "bun-linux-arm64-musl",
  "macos-x64": "bun-darwin-x64-baseline",
  "macos-arm64": "bun-darwin-arm64",
} as const;

/**
 * Times the normal count of calls before the engine compiles a function: `run` is over before that pays, and the
 * compiler's threads are a third of its memory and time. `main.ts` sets it back for what lives longer.
 */
const NO_COMPILER = 100_000;

/**
 * What Bun does before any of our code runs, and what nothing tells afterwards: it raises the soft limit of open files
 * (RLIMIT_NOFILE) to the hard one, by `setrlimit`, and ignores SIGPIPE and SIGXFSZ, by `signal`. The wrapped command
 * would not get what it gets without us. So these names among the symbols that the program imports become those of
 * functions that take the same arguments and change nothing. (What we call ourselves is looked up in libc by its
 * name, which this does not touch. Bun also takes a listener of `process.off` out by `signal`: it stays, idle.)
 */
const HARMLESS = { setrlimit: "getrlimit", signal: "abs" } as const;

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
    define: { BUILD_VERSION: JSON.stringify(version), BUILD_COMMIT: JSON.stringify(commit()) },
    bytecode: true,
    format: "esm",
    splitting: true, // what `run` does not use is not even read
    compile: {
      outfile: unfinished,
      autoloadDotenv: false,
      autoloadBunfig: false,
      jitPolicy: NO_COMPILER,
      ...(target && { target }),
    },
  });
  if (!target?.includes("darwin")) await keepProcessState(unfinished);
  await rename(unfinished, outfile); // over a binary that may be running
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
  // In somebody else's clone, as a package unpacked there, it would be their commit.
  if (git("rev-parse", "--show-cdup", "--is-inside-work-tree") !== "true") return "";
  return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*");
}

/** @throws where the program does not import each exactly once: then Bun does it in another way, and this must follow */
async function keepProcessState(file: string): Promise<void> {
  const program = Buffer.from(await Bun.file(file).bytes());
  const names = dynamicStrings(program);
  for (const [imported, harmless] of Object.entries(HARMLESS)) {
    const wanted = Buffer.from(`\0${imported}\0`);
    const at = names.indexOf(wanted);
    if (at < 0 || names.indexOf(wanted, at + 1) >= 0)
      throw new Error(`${file}: expected one import of ${imported}`);
    names.write(`${harmless}\0`.slice(0, imported.length), at + 1);
  }
  await Bun.write(file, program, { mode: 0o755 });
}

/** `.dynstr` of a 64-bit little-endian ELF file, elf(5): its only string table that is loaded. */
function dynamicStrings(elf: Buffer): Buffer {
  const SHT_STRTAB = 3;
  const SHF_ALLOC = 2n;
  const sections = Number(elf.readBigUInt64LE(0x28));
  for (let i = 0; i < elf.readUInt16LE(0x3c); i++) {
    const header = elf.subarray(sections + i * 64, sections + (i + 1) * 64);
    if (header.readUInt32LE(4) !== SHT_STRTAB || !(header.readBigUInt64LE(8) & SHF_ALLOC)) continue;
    const offset = Number(header.readBigUInt64LE(0x18));
    return elf.subarray(offset, offset + Number(header.readBigUInt64LE(0x20)));
  }
  throw new Error("no dynamic string table");
}

/** Types from tsc, JavaScript from tsc too: file by file, so that a stack trace names what is in `src/`. */
async function buildLibrary(): Promise<void> {
  await rm("dist/lib", { recursive: true, force: true });
  const tsc = Bun.spawnSync(["node_modules/.bin/tsc", "--project", "tsconfig.build.json"], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (!tsc.success) process.exit(1);
  // What is imported as text.
  for (const file of new Bun.Glob("command/completions/*.{bash,zsh,fish}").scanSync("src"))
    await Bun.write(`dist/lib/${file}`, Bun.file(`src/${file}`));
}
