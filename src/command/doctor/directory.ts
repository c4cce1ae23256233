/** Tries locks in a directory, with real processes. */
import { mkdtempSync, rmSync } from "node:fs";
import { CannotAcquireLock, LockFileError, printable } from "../../errors.ts";
import { Lock } from "../../lock.ts";
import { dieOf, SIG } from "../../os/signals.ts";
import { EXIT, ourselves } from "../cli/exit-status.ts";
import { jsonLine, print } from "../output/print.ts";
import { type Check, PATIENCE_MS, printChecks } from "./checks.ts";
import { type FileSystem, fileSystemOf } from "./file-system.ts";

/** Prints the result of each check, and returns the exit status. */
export async function doctorDirectory(dir: string, json: boolean): Promise<number> {
  const fileSystem = fileSystemOf(dir);
  const checks: Check[] = [...(await locksIn(dir)), locality(fileSystem)];
  const ok = checks.every((check) => check.ok);
  if (json) print(jsonLine({ directory: dir, ok, fileSystem, checks }));
  else {
    printChecks(checks);
    print(`${printable(dir)}: ${ok ? "locks work here" : "locks are not to be relied on here"}`);
  }
  if (checks.some(({ check, ok }) => ok === false && check !== "local")) return EXIT.IO_ERROR;
  return ok ? EXIT.OK : EXIT.NOT_LOCAL;
}

/**
 * Makes a directory to try it in, so that nothing stays in `dir`, whatever ends this process.
 * @throws {LockFileError} when it cannot be made
 */
function makeRoom(dir: string): Disposable & { path: string } {
  let path = "";
  const leave = () => {
    if (path) rmSync(path, { recursive: true, force: true, maxRetries: 10 });
  };
  for (const signal of ["INT", "TERM", "HUP"] as const) {
    process.on(`SIG${signal}`, () => {
      leave(); // a child that is about to make a file then has no directory for it
      dieOf(SIG[signal]);
    });
  }
  try {
    path = mkdtempSync(`${dir}/exclusive-doctor-`);
  } catch (error) {
    const { code = "EIO", message } = error as NodeJS.ErrnoException;
    throw new LockFileError(`cannot make files in ${printable(dir)}: ${message}`, code, "open", dir);
  }
  return { path, [Symbol.dispose]: leave };
}

/** Tries one lock with two processes, this one and a child. */
async function locksIn(dir: string): Promise<Check[]> {
  using room = makeRoom(dir);
  const lock = new Lock({ name: "doctor", dir: room.path });
  const child = (...command: string[]) =>
    Bun.spawn([...ourselves(), "run", "--exec", "--quiet", "--dir", room.path, lock.name, "--", ...command], {
      stdin: "pipe",
      stdout: "pipe",
      stderr: "ignore",
      timeout: PATIENCE_MS,
      killSignal: "SIGKILL",
    });

  lock.acquireSync();
  const refused = await child("true").exited;
  lock.releaseSync();
  const free = await child("true").exited;

  // Its input ends with this process, and so does it.
  const holder = child("cat");
  holder.stdin.write("held\n");
  holder.stdin.flush();
  const { value } = await holder.stdout.getReader().read();
  const held = value !== undefined;
  const keptOut = held && !tryLock(lock);
  lock.releaseSync();
  holder.kill("SIGKILL");
  await holder.exited;
  const killed = performance.now();
  let freed = false;
  while (held && !freed && performance.now() < killed + PATIENCE_MS) {
    freed = tryLock(lock);
    if (!freed) await Bun.sleep(5);
  }
  lock.releaseSync();

  const excludes = refused === EXIT.TEMPORARY_FAILURE && keptOut;
  return [
    {
      check: "excludes",
      ok: excludes,
      details: excludes
        ? "while one process holds a lock, another one does not get it"
        : "two processes had one lock at the same time",
    },
    {
      check: "freed by release",
      ok: free === EXIT.OK,
      details:
        free === EXIT.OK
          ? "a lock that was given back can be taken"
          : `a lock that was given back cannot be taken (status ${free})`,
    },
    {
      check: "freed by kill",
      ok: freed,
      details: freed
        ? "the lock of a killed process can be taken at once"
        : "a killed process keeps the lock",
    },
  ];
}

function tryLock(lock: Lock): boolean {
  try {
    lock.acquireSync();
    return true;
  } catch (error) {
    if (error instanceof CannotAcquireLock) return false;
    throw error;
  }
}

function locality({ type, local, advice }: FileSystem): Check {
  const where = local
    ? "a file system of this machine"
    : local === false
      ? `a network file system: ${advice ?? "whether locks hold between hosts is up to it"}`
      : `not known to be a file system of this machine${advice ? `: ${advice}` : ""}`;
  return { check: "local", ok: local, details: `${printable(type)}, ${where}` };
}
