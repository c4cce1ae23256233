/** Picks the command, or the flock(1) front end when the program was called as `flock`. */
import { printable } from "../errors.ts";
import { write } from "../os/files.ts";
import { KEEP, keep } from "../os/keeper.ts";
import { isCompiled } from "../os/self.ts";
import { unblockForOurselves } from "../os/signal-mask.ts";
import { BECOME, become } from "../os/spawn.ts";
import type { AnyCommand } from "./cli/define.ts";
import { EXIT, HelpRequest, statusOfError, UsageError } from "./cli/exit-status.ts";
import { print, printError } from "./output/print.ts";
import { GUARDIAN, STORE_KEEPER } from "./run/guardian-protocol.ts";
import run from "./run.ts";

const [name = "", ...rest] = process.argv.slice(2);

/** Starts `run` at once, without what the other commands need. */
function main(): number | Promise<number> {
  if (/(^|\/)flock$/.test(process.argv0)) return asFlock();
  return name === "run" ? call(run, rest) : other();
}

/** Runs a command with its raw arguments: it reads them by its own definition (`cli/options.ts`). */
function call(command: AnyCommand, rawArgs: string[]): number | Promise<number> {
  return command.run!({ rawArgs, args: { _: rawArgs as never }, cmd: command });
}

async function asFlock(): Promise<number> {
  return (await import("./flock.ts")).flockFront(process.argv.slice(2), process.argv0);
}

async function other(): Promise<number> {
  if (process.argv.length <= 2) return help([]);
  switch (name) {
    case "--version":
    case "-V":
      print(await (await import("./cli/version.ts")).version());
      return EXIT.OK;
    case "--help":
    case "-h":
    case "help":
      return help(rest);
    case BECOME:
      become(rest);
      return EXIT.NOT_FOUND;
    case KEEP:
      keep(rest);
      return EXIT.OK;
    case GUARDIAN:
      return (await import("./run/guardian.ts")).runGuardian();
    case STORE_KEEPER:
      return (await import("./run/store-keeper.ts")).runStoreKeeper();
  }
  if (name === "completion" && rest[0] === "--answer") {
    unblockForOurselves();
    return (await import("./completions/answer.ts")).answerCompletion(rest.slice(1));
  }
  const { loadCommand, unknownCommand } = await import("./commands.ts");
  const command = await loadCommand(name);
  if (command === undefined) throw unknownCommand(name, rest);
  if (name !== "flock") {
    unblockForOurselves(); // flock's command inherits the mask, as run's does
    Bun.unsafe.setJITPolicy(1); // see build.ts
  }
  return call(command, rest);
}

async function help(topic: string[]): Promise<number> {
  if (topic[0] === "flock") return call((await import("./flock.ts")).default, ["--help"]); // it has a page of its own
  return call((await import("./help.ts")).default, topic);
}

async function usageOf(name: string): Promise<string> {
  const [{ synopsis }, { loadCommand }] = await Promise.all([
    import("./cli/help.ts"),
    import("./commands.ts"),
  ]);
  return synopsis(await loadCommand(name));
}

/** The first failure, where cleaning up after it has failed too. */
const firstOf = (error: unknown): unknown =>
  error instanceof SuppressedError ? firstOf(error.suppressed) : error;

async function fail(failure: unknown): Promise<number> {
  const error = firstOf(failure);
  if (error instanceof HelpRequest) return help([name]);
  const status = report(error);
  if (error instanceof UsageError) write(2, `Usage: ${await usageOf(name)}\n`);
  return status;
}

/** Prints why the program ends. @returns its exit status */
function report(failure: unknown): number {
  const error = firstOf(failure);
  const status = statusOfError(error);
  if (status === undefined) return bug(error);
  const { message } = error as Error;
  printError(status === EXIT.CANNOT_RUN ? `cannot run here: ${printable(message)}` : printable(message));
  return status;
}

/** Reports what must not happen. In the binary a stack names nothing but places in minified text. */
function bug(error: unknown): number {
  const { stack, message } = error as Partial<Error>;
  printError(`internal error: ${printable((isCompiled ? message : stack) ?? String(error))}`);
  return EXIT.SOFTWARE;
}

// Else Bun prints source text and ends with 1: in a callback, and where no code waits for a promise.
for (const event of ["uncaughtException", "unhandledRejection"])
  process.on(event, (failure) => process.exit(report(failure)));
new Promise<number>((resolve) => resolve(main())).catch(fail).catch(report).then(process.exit);
