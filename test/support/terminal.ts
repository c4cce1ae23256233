/** Processes on a new pseudo-terminal, with the line discipline of the kernel. */
import { root } from "./paths.ts";
import type { StartOptions } from "./process.ts";
import { until } from "./until.ts";

/** The byte that a key sends. The terminal turns the first three into signals, termios(3). */
export const KEY = { CTRL_C: "\x03", CTRL_BACKSLASH: "\x1c", CTRL_Z: "\x1a", CTRL_D: "\x04" } as const;

export interface TerminalOptions extends Omit<StartOptions, "stdin"> {
  columns?: number;
  rows?: number;
}

/** A process that leads a session on a new terminal. The terminal hangs up when the scope ends. */
export class TerminalProcess implements AsyncDisposable {
  /** Everything that was written to the terminal so far, with the echo of typed input. */
  output = "";
  readonly #child: Bun.Subprocess;
  readonly #terminal: Bun.Terminal;
  readonly #closed = Promise.withResolvers<void>();
  #read = 0;

  constructor(argv: string[], { dir, env, cwd, columns = 80, rows = 24 }: TerminalOptions = {}) {
    const decoder = new TextDecoder();
    // The spawn creates the terminal: an existing one would not be the child's controlling terminal.
    this.#child = Bun.spawn(argv, {
      env: { ...process.env, TERM: "xterm-256color", ...(dir && { EXCLUSIVE_DIR: dir.path }), ...env },
      cwd: cwd ?? root,
      terminal: {
        cols: columns,
        rows,
        data: (_, bytes) => {
          this.output += decoder.decode(bytes, { stream: true });
        },
        exit: () => this.#closed.resolve(),
      },
    });
    this.#terminal = this.#child.terminal!;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** How it ended, as in `Process.result`. */
  get result(): Promise<{ status: number | null; signal: string | null }> {
    return this.#child.exited.then(() => ({
      status: this.#child.exitCode,
      signal: this.#child.signalCode === null ? null : String(this.#child.signalCode),
    }));
  }

  /** Waits until no process has the terminal open any more and all that was written to it has been read. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  type(keys: string): void {
    this.#terminal.write(keys);
  }

  resize(columns: number, rows: number): void {
    this.#terminal.resize(columns, rows);
  }

  /** Hangs up the terminal, as closing its window does. */
  hangUp(): void {
    this.#terminal.close();
  }

  kill(signal: NodeJS.Signals = "SIGTERM"): void {
    this.#child.kill(signal);
  }

  /** Waits until the terminal shows this, after the last match. Typed lines are echoed: match something else. */
  async shows(what: string | RegExp): Promise<string> {
    const pattern = typeof what === "string" ? new RegExp(RegExp.escape(what)) : what;
    let found: RegExpExecArray | null = null;
    await until(
      () => {
        found = pattern.exec(this.output.slice(this.#read));
        return found !== null;
      },
      `${pattern} on the terminal`,
      () => JSON.stringify(this.output.slice(this.#read)),
    );
    this.#read += found!.index + found![0].length;
    return found![0];
  }

  /** The lines that the terminal shows now. */
  get screen(): string[] {
    return render(this.output);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#terminal.close();
    await Promise.race([this.#child.exited, Bun.sleep(1000)]);
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill("SIGKILL");
    await this.#child.exited;
  }
}

/** The screen after these bytes: text, control characters, and the ECMA-48 functions that move or erase. */
export function render(output: string): string[] {
  const lines: string[] = [""];
  let row = 0;
  let column = 0;
  const at = (parameter: string, otherwise: number) => Number(parameter) || otherwise;
  for (const [part, parameters = "", final] of output.matchAll(
    /\x1b\[([?\d;]*)([a-zA-Z])|\x1b[^[]|[\s\S]/g,
  )) {
    const [first = "", second = ""] = parameters.split(";");
    if (part === "\r") column = 0;
    else if (part === "\n") row++;
    else if (part === "\b") column = Math.max(0, column - 1);
    else if (final === "A") row = Math.max(0, row - at(first, 1));
    else if (final === "B") row += at(first, 1);
    else if (final === "C") column += at(first, 1);
    else if (final === "G") column = at(first, 1) - 1;
    else if (final === "H") [row, column] = [at(first, 1) - 1, at(second, 1) - 1];
    else if (final === "K") lines[row] = first === "2" ? "" : lines[row]!.slice(0, column);
    else if (final === "J")
      lines.splice(
        first === "2" ? 0 : row,
        lines.length,
        ...(first === "2" ? [] : [lines[row]!.slice(0, column)]),
      );
    else if (part.length === 1 && part >= " ") {
      lines[row] = lines[row]!.padEnd(column).slice(0, column) + part + lines[row]!.slice(column + 1);
      column++;
    }
    while (lines.length <= row) lines.push("");
  }
  return lines.map((line) => line.trimEnd());
}
