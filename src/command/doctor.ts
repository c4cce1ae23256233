/** `exclusive doctor`: verifies with real processes that locking works in a directory. */
import { mkdtempSync, rmSync } from "node:fs";
import { CannotAcquireLock, printable } from "../errors.ts";
import { Lock } from "../lock.ts";
import { defaultDirectory } from "../name.ts";
import { codeOf, systemError } from "../os/errors.ts";
import { ourselves } from "../os/self.ts";
import { dieBySignal, SIG } from "../os/signals.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { parseOptions } from "./cli/options.ts";
import { STORE, whereOf } from "./cli/store-options.ts";
import { type Check, PATIENCE_MS, report } from "./doctor/checks.ts";
import { type FileSystem, fileSystemOf } from "./doctor/file-system.ts";

export const OPTIONS = {
  json: { help: "print one JSON object" },
  ...STORE,
} as const;

export async function doctor(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, OPTIONS, true);
  if (rest.length > 1) throw new UsageError("one directory at a time");
  // EXCLUSIVE_STORE does not count: without an option this is about a directory.
  if (values.store !== undefined || values["store-file"] !== undefined) {
    if (rest.length > 0) throw new UsageError("doctor looks at a directory or at a store, not at both");
    const where = whereOf(values);
    if ("url" in where)
      return (await import("./doctor/store.ts")).doctorStore(where.url, values.json === true);
    return doctor([where.dir!, ...(values.json ? ["--json"] : [])]);
  }
  const dir = rest[0] ?? defaultDirectory();
  const fileSystem = fileSystemOf(dir);
  const checks: Check[] = [...(await locksIn(dir)), locality(fileSystem)];
  const ok = report(printable(dir), checks, values.json === true, { directory: dir, fileSystem });
  if (checks.some(({ check, ok }) => ok === false && check !== "local")) return EXIT.IO_ERROR;
  return ok ? EXIT.OK : EXIT.NOT_LOCAL;
}

/**
 * Makes a directory for the checks, so that nothing stays in `dir`, whatever ends us.
 * @throws {LockFileError} when it cannot be made
 */
function makeRoom(dir: string): Disposable & { path: string } {
  let path = "";
  const leave = () => {
    if (path) rmSync(path, { recursive: true, force: true, maxRetries: 10 });
  };
  for (const signal of ["INT", "TERM", "HUP"] as const) {
    process.on(`SIG${signal}`, () => {
      leave(); // a child that is about to make a file then finds no directory
      dieBySignal(SIG[signal]);
    });
  }
  try {
    path = mkdtempSync(`${dir}/exclusive-doctor-`);
  } catch (error) {
    throw systemError("open", dir, codeOf(error), { doing: "make files in" });
  }
  return { path, [Symbol.dispose]: leave };
}

/** Tries one lock between two processes, this one and a child. */
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

  // It ends when we end, in whatever way: its input ends.
  const holder = child("cat");
  holder.stdin.write("held\n");
  holder.stdin.flush();
  const { value } = await holder.stdout.getReader().read();
  const held = value !== undefined;
  const keptOut = held && !tryIt(lock);
  lock.releaseSync();
  holder.kill("SIGKILL");
  await holder.exited;
  const killed = performance.now();
  let freed = false;
  while (held && !freed && performance.now() < killed + PATIENCE_MS) {
    freed = tryIt(lock);
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
