#!/usr/bin/env bun
/** The binary's entry: which command, which front. */
import "./signals.ts"; // before anything else: see there

import { COMMANDS } from "./commands.ts";
import { EXIT, statusOfError, UsageError } from "./exit.ts";
import { nearest } from "./options.ts";
import { complain, print } from "./say.ts";
import { unblockSignals } from "./signals.ts";

async function main(args: string[]): Promise<number> {
  const [command, ...rest] = args;
  if (command === undefined) throw new UsageError("COMMAND is missing");
  if (command === "--version" || command === "-V") {
    print("exclusive 0.1.0");
    return EXIT.OK;
  }
  if (command === "--help" || command === "-h" || command === "help") {
    const { usage } = await import("./usage.ts");
    print(usage(rest[0]));
    return EXIT.OK;
  }
  if (!Object.hasOwn(COMMANDS, command)) {
    const meant = nearest(command, Object.keys(COMMANDS));
    throw new UsageError(`unknown command '${command}'${meant ? ` (did you mean ${meant}?)` : ""}`);
  }
  if (command !== "run") unblockSignals();
  const { main } = await COMMANDS[command]!.load();
  return main(rest);
}

main(process.argv.slice(2)).then(process.exit, (error: unknown) => {
  const status = statusOfError(error);
  complain(
    status === undefined ? `internal error: ${(error as Error).stack ?? error}` : (error as Error).message,
  );
  process.exit(status ?? EXIT.SOFTWARE);
});
