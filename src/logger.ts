/** What the library says: nothing, unless somebody asked. */

/** Anything with an `info` method, such as consola, pino or console. */
export interface Logger {
  info(message: string): void;
}

let shared: Logger | undefined;

/** Logs an acquire or release, on the given logger, or on one of ours when `EXCLUSIVE_LOG` asks for it. */
export function inform(given: Logger | undefined, message: () => string): void {
  if (given === undefined && !process.env.EXCLUSIVE_LOG) return;
  if (given === undefined) shared ??= consola();
  (given ?? shared)?.info(message());
}

/** consola is loaded here and nowhere else, in its small form: all of it is larger than the rest of the binary of ours. */
function consola(): Logger {
  const { createConsola, LogLevels } = require("consola/basic") as typeof import("consola/basic");
  const wanted = (process.env.EXCLUSIVE_LOG ?? "").toLowerCase();
  const level = LogLevels[wanted as keyof typeof LogLevels] ?? LogLevels.info;
  return createConsola({ level, stdout: process.stderr, stderr: process.stderr }).withTag("exclusive");
}
