/** Checks this program itself: that it is whole, and that what it needs of the system is there. */
import { Lock } from "../../lock.ts";
import { defaultDirectory } from "../../name.ts";
import { cLibrary } from "../../os/libc.ts";
import { isCompiled, isPatched, ourselves } from "../../os/self.ts";
import { EXIT } from "../cli/exit-status.ts";
import { version } from "../cli/version.ts";
import { type Check, PATIENCE_MS, report } from "./checks.ts";
import { locksIn, makeRoom } from "./directory.ts";

/** Prints the result of each check, and returns the exit status. */
export async function doctorSelf(json: boolean): Promise<number> {
  const { path } = defaultDirectory();
  const whole = isPatched ? [await ignoresVariables(), await endsWith71(), await isTransparent(path)] : [];
  const checks = [...whole, await waits(path), ...(await locksIn(path))];
  const name = await version();
  const runtime = `Bun ${Bun.version}${isCompiled ? ", part of this binary" : ""}`;
  const facts = { runtime, "C library": cLibrary() };
  const ok = report(name, checks, json, { program: name, compiled: isCompiled }, facts);
  return ok ? EXIT.OK : EXIT.CANNOT_RUN;
}

interface Outcome {
  status: number | null;
  stdout: string;
}

async function outcomeOf(command: string[], environment: Record<string, string> = {}): Promise<Outcome> {
  const child = Bun.spawn(command, {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    env: { ...process.env, ...environment },
    timeout: PATIENCE_MS,
    killSignal: "SIGKILL",
  });
  const stdout = await new Response(child.stdout).text();
  await child.exited;
  return { status: child.exitCode, stdout };
}

/** `build/environment.ts`: else these variables make plain Bun of the program. */
async function ignoresVariables(): Promise<Check> {
  const { stdout } = await outcomeOf([...ourselves(), "--version"], {
    BUN_BE_BUN: "1",
    BUN_OPTIONS: "--preload=/nonexistent",
  });
  const ok = stdout.trim() === (await version());
  return {
    check: "own code",
    ok,
    details: ok
      ? "it stays this program whatever BUN_OPTIONS and BUN_BE_BUN are"
      : "variables make another program of it: the binary was changed after it was built",
  };
}

/** `build/abort.ts`: the engine does not get the memory that it asks for, and gives up. */
async function endsWith71(): Promise<Check> {
  const { status } = await outcomeOf([...ourselves(), "--version"], { BUN_JSC_structureHeapSizeInKB: "1" });
  const ok = status === EXIT.CANNOT_RUN;
  return {
    check: "own failures",
    ok,
    details: ok
      ? "a failure of the engine ends it with 71"
      : `a failure of the engine ends it with ${status}: the binary was changed after it was built`,
  };
}

/** `build/process-state.ts` and `build/record-start.ts`: a limit and an ignored signal reach the command. */
async function isTransparent(dir: string): Promise<Check> {
  using room = makeRoom(dir);
  const command = "ulimit -Sn; kill -PIPE $$; echo ignored";
  const { stdout } = await outcomeOf([
    "/bin/sh",
    "-c",
    'ulimit -Sn 64; trap "" PIPE; exec "$@"',
    "sh",
    process.execPath,
    ...["run", "--quiet", "--dir", room.path, "self", "--", "/bin/sh", "-c", command],
  ]);
  const ok = stdout === "64\nignored\n";
  return {
    check: "transparent",
    ok,
    details: ok
      ? "limits and ignored signals reach the command as they were"
      : `limits or ignored signals do not reach the command: ${JSON.stringify(stdout)}`,
  };
}

/** A wait needs a thread, and the kernel to end it. */
async function waits(dir: string): Promise<Check> {
  using room = makeRoom(dir);
  const holder = Bun.spawn(
    [...ourselves(), "run", "--exec", "--quiet", "--dir", room.path, "self", "--", "cat"],
    { stdin: "pipe", stdout: "pipe", stderr: "ignore", timeout: PATIENCE_MS, killSignal: "SIGKILL" },
  );
  holder.stdin.write("held\n");
  holder.stdin.flush();
  await holder.stdout.getReader().read();
  const lock = new Lock({ name: "self", dir: room.path });
  const waiting = lock.acquire({ timeout: PATIENCE_MS }).then(
    () => true,
    (error: Error) => error.message,
  );
  setTimeout(() => holder.stdin.end(), 50); // after the wait has begun
  const ended = await waiting;
  if (ended === true) lock.releaseSync();
  return {
    check: "waits",
    ok: ended === true,
    details: ended === true ? "a waiter gets the lock when its holder ends" : `a wait failed: ${ended}`,
  };
}
