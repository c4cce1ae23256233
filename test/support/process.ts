/** Processes that tests start. */
import { writeFileSync } from "node:fs";
import { binary, library, root } from "./paths.ts";
import { TempDir } from "./temp-dir.ts";
import { until } from "./until.ts";

export interface Result {
  status: number | null;
  /** The name of the signal that ended it. */
  signal: string | null;
  stdout: string;
  stderr: string;
}

export interface StartOptions {
  /** The lock directory: `EXCLUSIVE_DIR`. */
  dir?: TempDir | undefined;
  env?: Record<string, string | undefined>;
  cwd?: string;
  stdin?: string;
}

/** A process that a test starts. It is killed when the scope ends. */
export class Process implements AsyncDisposable {
  readonly #child: Bun.Subprocess<Blob | "ignore", "pipe", "pipe">;
  /** What it has written to stdout so far. */
  stdout = "";
  stderr = "";
  readonly result: Promise<Result>;

  constructor(argv: string[], { dir, env, cwd, stdin }: StartOptions = {}) {
    const child = Bun.spawn(argv, {
      env: { ...process.env, ...(dir && { EXCLUSIVE_DIR: dir.path }), ...env },
      cwd: cwd ?? root,
      stdin: stdin === undefined ? "ignore" : new Blob([stdin]),
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#child = child;
    const reading = Promise.all([
      read(child.stdout, (text) => {
        this.stdout += text;
      }),
      read(child.stderr, (text) => {
        this.stderr += text;
      }),
    ]);
    this.result = (async () => {
      await child.exited;
      // A daemon may keep the pipes open, so this waits only a moment longer for the rest of the output.
      await Promise.race([reading, Bun.sleep(500)]);
      const { exitCode, signalCode } = child;
      return {
        status: exitCode,
        signal: signalCode === null ? null : String(signalCode),
        stdout: this.stdout,
        stderr: this.stderr,
      };
    })();
  }
  get pid(): number {
    return this.#child.pid;
  }
  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }
  kill(signal: NodeJS.Signals = "SIGTERM"): void {
    this.#child.kill(signal);
  }
  /** Waits until it has written this to stdout. */
  says(text: string): Promise<void> {
    return until(
      () => this.stdout.includes(text),
      `${JSON.stringify(text)} on stdout`,
      () => this.stderr,
    );
  }
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.running) {
      const children = descendants(this.pid); // a wrapper that is killed leaves its command
      this.kill("SIGKILL");
      for (const pid of children) sendKill(pid);
    }
    await this.#child.exited;
  }
}

/** Each process with its parent. */
function processPairs(): number[][] {
  const { stdout } = Bun.spawnSync(["ps", "-A", "-o", "pid=,ppid="]);
  const lines = stdout.toString().trim().split("\n");
  return lines.map((line) => line.trim().split(/\s+/).map(Number));
}

/** The living children of a process. */
export const childrenOf = (pid: number, pairs = processPairs()): number[] =>
  pairs.filter(([, parent]) => parent === pid).map(([child]) => child!);

/** The children of a process, their children, and so on. */
export const descendants = (pid: number, pairs = processPairs()): number[] =>
  childrenOf(pid, pairs).flatMap((child) => [child, ...descendants(child, pairs)]);

function sendKill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {} // it has ended by itself
}

async function read(stream: ReadableStream<Uint8Array>, write: (text: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  for await (const chunk of stream) write(decoder.decode(chunk, { stream: true }));
}

/** Starts `exclusive` with these arguments. */
export const start = (args: string[], options?: StartOptions): Process =>
  new Process([binary, ...args], options);

/** The command of `hold`: prints `begun`, and runs until it is killed. */
const HOLD = ["sh", "-c", "echo begun; exec sleep 600"];

/** Starts a command that holds a lock until it is killed, and waits until it has the lock. */
export async function hold(
  where: TempDir | StartOptions,
  name: string,
  ...options: string[]
): Promise<Process> {
  const holder = start(
    ["run", ...options, name, "--", ...HOLD],
    where instanceof TempDir ? { dir: where } : where,
  );
  await holder.says("begun");
  return holder;
}

/** The pid of the command: the wrapper's child. */
export const commandOf = (wrapper: Process): number => childrenOf(wrapper.pid)[0]!;

/** Runs `exclusive` to its end. */
export const exclusive = (args: string[], options?: StartOptions): Promise<Result> =>
  start(args, options).result;

/** Runs any command to its end. */
export const command = (argv: string[], options?: StartOptions): Promise<Result> =>
  new Process(argv, options).result;

/** Starts a script: an import of the library, then `code`. */
export function startScript(
  code: string,
  dir: TempDir,
  { prefix = [], ...options }: StartOptions & { /** What starts it, as `nohup`. */ prefix?: string[] } = {},
): Process {
  const home = new TempDir();
  const file = home.file("script.ts");
  writeFileSync(
    file,
    `import { Lock, CannotAcquireLock, LockTimeout, LockFileError, exclusive } from ${JSON.stringify(library)};\n${code}`,
  );
  const script = new Process([...prefix, process.execPath, file], { dir, ...options });
  script.result.finally(() => home[Symbol.dispose]()); // `bun test` has no "exit" event to do it at
  return script;
}
