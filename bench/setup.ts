/** What the sections need: programs that are built here, and those of others that are installed or skipped. */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Figure, Target } from "./figures.ts";

export const here = import.meta.dir;
const root = join(here, "..");
const BUILT = join(here, "node_modules/.built");
/** The program, copied as an installation does. */
export const binary = join(BUILT, "exclusive");

/** What each section gets. */
export interface Bench {
  quick: boolean;
  /** Another checkout to compare with. */
  base: string | undefined;
  /** The path of a program that is built or copied here. */
  built: (name: "measure" | "cycle" | "stamp" | "floor" | "empty" | "base") => string;
  /** Makes a new directory. */
  directory: () => string;
  figures: Figure[];
  targets: Target[];
  /** Reports that something is not measured, and why. */
  skip: (what: string) => void;
}

const AUTOLOAD_NOTHING = { autoloadDotenv: false, autoloadBunfig: false };
/** The programs that `exclusive` is compared with. The empty one is compiled as `exclusive` is, see `build.ts`. */
const FLOORS = { floor: {}, empty: { jitPolicy: 100_000 } };

export interface Setup extends Bench, Disposable {
  skipped: string[];
}

/** Builds everything. Programs go to `bench/node_modules/.built`, which git ignores. */
export async function setUp(quick: boolean, base?: string): Promise<Setup> {
  mkdirSync(BUILT, { recursive: true });
  command([process.execPath, "build.ts"], root);
  for (const [name, options] of Object.entries(FLOORS)) {
    await Bun.build({
      entrypoints: [join(here, `${name}.ts`)],
      target: "bun",
      minify: true,
      bytecode: true,
      compile: { outfile: join(BUILT, `${name}.built`), ...AUTOLOAD_NOTHING, ...options },
    });
  }
  // How the kernel maps a program depends on how its file was written: all are copied, as by an installation.
  const copies = {
    floor: join(BUILT, "floor.built"),
    empty: join(BUILT, "empty.built"),
    exclusive: join(root, "dist/exclusive"),
    ...(base !== undefined && { base: join(base, "dist/exclusive") }),
  };
  for (const [name, from] of Object.entries(copies))
    command(["cp", "--remove-destination", from, join(BUILT, name)]);
  for (const name of ["measure", "cycle", "stamp"])
    command(["gcc", "-O2", "-Wall", "-o", join(BUILT, name), join(here, `${name}.c`)], root);
  const parent = mkdtempSync(join(tmpdir(), "exclusive-bench-"));
  const skipped: string[] = [];
  let count = 0;
  const skip = (what: string) => {
    console.error(`skipped: ${what}`);
    skipped.push(what);
  };
  installPeers(skip);
  return {
    quick,
    base,
    built: (name) => join(BUILT, name),
    directory: () => {
      const path = join(parent, String(++count));
      mkdirSync(path);
      return path;
    },
    figures: [],
    targets: [],
    skipped,
    skip,
    [Symbol.dispose]: () => rmSync(parent, { recursive: true, force: true }),
  };
}

function installPeers(skip: (what: string) => void): void {
  const args = [process.execPath, "install", "--no-save", "--ignore-scripts", "--silent"];
  const { success } = Bun.spawnSync(args, { cwd: here, stdout: "ignore", stderr: "ignore" });
  if (!success && !existsSync(join(here, "node_modules/proper-lockfile")))
    skip("the packages from npm (bun install failed in bench/)");
}

/** Runs a program that must succeed. */
export function command(argv: string[], cwd = here): string {
  const { success, stdout, stderr } = Bun.spawnSync(argv, { cwd, stdin: "ignore" });
  if (!success) throw new Error(`${argv.join(" ")} failed: ${stderr}`);
  return stdout.toString();
}

/** Is this program installed? */
export const has = (program: string): boolean => Bun.which(program) !== null;

/** A process with which lines are exchanged. */
export class Talker implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: AsyncGenerator<string>;

  constructor(argv: string[]) {
    this.#child = Bun.spawn(argv, { stdin: "pipe", stdout: "pipe", stderr: "inherit" });
    this.#lines = lines(this.#child.stdout);
  }
  get pid(): number {
    return this.#child.pid;
  }
  say(line: string): void {
    this.#child.stdin.write(`${line}\n`);
    this.#child.stdin.flush();
  }
  /** Waits for the next line that begins with `word`. Returns the rest of it. */
  async hear(word: string): Promise<string> {
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done) throw new Error(`the process ended without printing ${word}`);
      if (value.startsWith(word)) return value.slice(word.length).trim();
    }
  }
  kill(): void {
    this.#child.kill("SIGKILL");
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.kill();
    await this.#child.exited;
  }
}

async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}

/** Waits for a condition, for a minute at most. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await Bun.sleep(5);
  }
}
