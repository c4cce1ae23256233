/** Picks the command, or the flock(1) front end when the program was called as `flock`. */
import { printable } from "../errors.ts";
import { unblockSignals } from "../os/signal-mask.ts";
import { EXIT, HelpRequest, statusOfError, UsageError } from "./cli/exit-status.ts";
import { nearest } from "./cli/options.ts";
import { complain, print } from "./output/print.ts";
import { GUARDIAN } from "./run/guardian-protocol.ts";
import { run } from "./run.ts";

const [command = "", ...rest] = process.argv.slice(2);

/** `run` must start fast: at once, and without what the others need. */
function main(): number | Promise<number> {
  if (/(^|\/)flock$/.test(process.argv0)) return flock(process.argv.slice(2), process.argv0);
  if (command === "flock") return flock(rest, "exclusive flock");
  return command === "run" ? run(rest) : other();
}

/** flock(1) has its own rules for every argument. */
async function flock(args: string[], called: string): Promise<number> {
  const { flockFront } = await import("./flock.ts");
  return flockFront(args, called);
}

async function other(): Promise<number> {
  switch (command) {
    case "--version":
    case "-V":
      print(await (await import("./cli/version.ts")).version());
      return EXIT.OK;
    case "--help":
    case "-h":
    case "help":
      return help(rest[0]);
    case GUARDIAN:
      return (await import("./run/guardian.ts")).runGuardian();
  }
  const { main } = await (await entry(command)).load();
  unblockSignals();
  Bun.unsafe.setJITPolicy(1); // see build.ts
  return main(rest);
}

/** @throws {UsageError} when there is no such command */
async function entry(name: string) {
  const { COMMANDS } = await import("./commands.ts");
  if (Object.hasOwn(COMMANDS, name)) return COMMANDS[name]!;
  if (name === "") throw new UsageError("COMMAND is missing");
  const meant = nearest(name, [...Object.keys(COMMANDS), "help", "--help", "--version"]);
  const what = name.startsWith("-") ? "option" : "command";
  throw new UsageError(`unknown ${what} '${printable(name)}'${meant ? ` (did you mean ${meant}?)` : ""}`);
}

async function help(name = "help"): Promise<number> {
  if (name === "flock") return flock(["--help"], "exclusive flock");
  const { page, overview } = await import("./cli/help.ts");
  if (name !== "help") await entry(name);
  print(name === "help" ? overview() : await page(name));
  return EXIT.OK;
}

async function fail(error: unknown): Promise<number> {
  if (error instanceof HelpRequest) return help(command);
  const status = statusOfError(error);
  if (status === undefined) {
    complain(`internal error: ${(error as Error).stack ?? error}`);
    return EXIT.SOFTWARE;
  }
  const usage = error instanceof UsageError ? (await import("./cli/help.ts")).synopsis(command) : undefined;
  complain((error as Error).message);
  if (usage !== undefined) complain(`usage: ${usage}`);
  return status;
}

new Promise<number>((resolve) => resolve(main())).catch(fail).then(process.exit);
