/** Tries locks in a directory, with real processes. */
import { mkdtempSync, rmSync } from "node:fs";
import { CannotAcquireLock, printable } from "../../errors.ts";
import { Lock } from "../../lock.ts";
import { beforeDeath } from "../../os/before-death.ts";
import { codeOf, errorText, systemError } from "../../os/errors.ts";
import { close, O, open } from "../../os/files.ts";
import { flock, LOCK, needsWriting } from "../../os/flock.ts";
import { EXIT, UsageError } from "../cli/exit-status.ts";
import { type Check, noVerdict, PATIENCE_MS, report, startRun } from "./checks.ts";
import { type FileSystem, fileSystemOf } from "./file-system.ts";

/**
 * Prints the result of each check, and returns the exit status.
 * @param directory and, where it is the default one, why it is that
 */
export async function doctorDirectory(
  { path: dir, reason }: { path: string; reason?: string },
  json: boolean,
): Promise<number> {
  const fileSystem = fileSystemOf(dir);
  const checks: Check[] = [...(await locksIn(dir)), locality(fileSystem)];
  const place = printable(dir) + (reason === undefined ? "" : ` (${reason})`);
  const ok = report(place, checks, json, { directory: dir, reason, fileSystem });
  if (checks.some(({ check, ok }) => ok === false && check !== "local")) return EXIT.IO_ERROR;
  return ok ? EXIT.OK : EXIT.NOT_LOCAL;
}

/**
 * Makes a directory for the checks, so that nothing stays in `dir`, whatever ends us.
 * @throws {LockFileError} when it cannot be made
 */
export function makeRoom(dir: string): Disposable & { path: string } {
  let path = "";
  const leave = () => {
    try {
      if (path) rmSync(path, { recursive: true, force: true, maxRetries: 10 });
    } catch (error) {
      throw systemError("unlink", path, codeOf(error), { doing: "remove" });
    }
  };
  const onSignal = beforeDeath(leave); // a child that is about to make a file then finds no directory
  try {
    path = mkdtempSync(`${dir}/exclusive-doctor-`);
  } catch (error) {
    if (codeOf(error) === "ENOTDIR") throw new UsageError(`not a directory: ${dir}`);
    throw systemError("open", dir, codeOf(error), { doing: "create files in" });
  }
  return {
    path,
    [Symbol.dispose]() {
      leave();
      onSignal[Symbol.dispose]();
    },
  };
}

/** Tries one lock between two processes, this one and a child. */
export async function locksIn(dir: string): Promise<Check[]> {
  using room = makeRoom(dir);
  using lock = new Lock({ name: "doctor", dir: room.path }); // its descriptor is free when the room is left
  const child = (...command: string[]) => {
    const run = startRun(["--exec", "--dir", room.path, lock.name, "--", ...command]);
    const late = setTimeout(() => run.kill("SIGKILL"), PATIENCE_MS);
    run.exited.then(() => clearTimeout(late));
    return run;
  };
  const gotIt = async () => {
    const tried = child("true");
    const status = await tried.exited;
    if (status === EXIT.OK || status === EXIT.TEMPORARY_FAILURE) return status === EXIT.OK;
    throw await noVerdict(tried);
  };

  lock.acquireSync();
  const refused = !(await gotIt());
  lock.releaseSync();
  const free = await gotIt();

  // It ends when we end, in whatever way: its input ends.
  const holder = child("cat");
  holder.stdin.write("held\n");
  holder.stdin.flush();
  const { value } = await holder.stdout.getReader().read();
  if (value === undefined) throw await noVerdict(holder);
  const keptOut = !tryIt(lock);
  lock.releaseSync();
  holder.kill("SIGKILL");
  await holder.exited;
  const killed = performance.now();
  let freed = false;
  while (!freed && performance.now() < killed + PATIENCE_MS) {
    freed = tryIt(lock);
    if (!freed) await Bun.sleep(5);
  }
  lock.releaseSync();

  const excludes = refused && keptOut;
  const forReaders = readOnlyLock(room.path);
  return [
    {
      check: "excludes",
      ok: excludes,
      details: excludes
        ? "a lock held by one process is refused to another"
        : "two processes had one lock at the same time",
    },
    {
      check: "freed by release",
      ok: free,
      details: free ? "a released lock can be taken" : "a released lock cannot be taken",
    },
    {
      check: "freed by kill",
      ok: freed,
      details: freed
        ? "the lock of a killed process can be taken at once"
        : "a killed process keeps the lock",
    },
    forReaders,
  ];
}

/** Locks a file that is open for reading only, as `--file` and another user's lock file are. */
function readOnlyLock(directory: string): Check {
  const path = `${directory}/read-only`;
  const made = open(path, O.CREAT | O.EXCL | O.WRONLY, 0o444);
  if (typeof made === "number") close(made);
  const fd = open(path, O.RDONLY | O.NONBLOCK);
  const failure = typeof fd === "string" ? fd : flock(fd, LOCK.EX | LOCK.NB);
  if (typeof fd === "number") close(fd);
  const known = failure === undefined || needsWriting(failure);
  return {
    check: "read-only file",
    ok: known,
    details:
      failure === undefined
        ? "a file that may only be read can be locked"
        : known
          ? "only a file that may be written can be locked: --file needs write permission here"
          : `a file that may only be read cannot be locked: ${errorText(failure)}`,
  };
}

function tryIt(lock: Lock): boolean {
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
