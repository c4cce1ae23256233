/** The log of the library: silent by default. */

/** Anything with an `info` method, such as consola, pino or console. */
export interface Logger {
  info(message: string): void;
}

let shared: Logger | undefined;

/** Logs an acquire or release on the given logger, else on consola if `EXCLUSIVE_LOG` is set. */
export function inform(given: Logger | undefined, message: () => string): void {
  if (given === undefined && !process.env.EXCLUSIVE_LOG) return;
  if (given === undefined) shared ??= consola();
  (given ?? shared)?.info(message());
}

/** Does `EXCLUSIVE_LOG` ask for messages at `info`? For the command, which needs no consola to print them. */
export const logsInfo = (): boolean =>
  !["", "silent", "fatal", "error", "warn", "log"].includes((process.env.EXCLUSIVE_LOG ?? "").toLowerCase());

/**
 * consola, loaded on demand, in its core: the other builds touch `process.stdout` and `process.stderr` when they are loaded,
 * and Bun then makes a pipe there non-blocking for all that share it. Lines are written by `console.error`, as a program
 * writes its own, which touches nothing.
 */
function consola(): Logger {
  const { createConsola, LogLevels } = require("consola/core") as typeof import("consola/core");
  const wanted = (process.env.EXCLUSIVE_LOG ?? "").toLowerCase();
  const level = LogLevels[wanted as keyof typeof LogLevels] ?? LogLevels.info;
  const log = ({ type, tag, args }: { type: string; tag: string; args: unknown[] }) =>
    console.error(`[${type}] [${tag}]`, ...args);
  return createConsola({ level, reporters: [{ log }] }).withTag("exclusive");
}
