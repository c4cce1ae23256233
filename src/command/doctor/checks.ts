/** Checks that `exclusive doctor` makes, and their report. */
import { CannotRun, printable } from "../../errors.ts";
import { limits, seesProcesses } from "../../os/limits.ts";
import { ourselves } from "../../os/self.ts";
import { jsonLine, print } from "../output/print.ts";

/** The result of one check. */
export interface Check {
  check:
    | ("excludes" | "freed by release" | "freed by kill" | "read-only file" | "local" | "tokens grow")
    | ("own code" | "own failures" | "transparent" | "waits");
  /** Undefined where it cannot be told. */
  ok?: boolean | undefined;
  details: string;
}

/** Time for a process to start, and for the kernel to free the lock of a killed one. */
export const PATIENCE_MS = 10_000;

/** Starts a run that tries a lock. @throws {CannotRun} when no process can be started here */
export function startRun(args: string[], env = process.env) {
  try {
    const streams = { stdin: "pipe", stdout: "pipe", stderr: "pipe" } as const;
    return Bun.spawn([...ourselves(), "run", "--quiet", ...args], { ...streams, env });
  } catch (error) {
    throw new CannotRun((error as Error).message);
  }
}

/** A run that neither got the lock nor was refused: it proves nothing about locks here. */
export async function noVerdict({ exited, stderr }: Bun.ReadableSubprocess): Promise<CannotRun> {
  const [status, text] = await Promise.all([exited, new Response(stderr).text()]);
  const [line = ""] = text.split("\n");
  return new CannotRun(`a run that tries the lock ended with status ${status} (${printable(line)})`);
}

/** Below this a thread to wait in may not start, in bytes. Measured: docs/surroundings.md. */
const ADDRESS_SPACE_MIN = 3e9;
const THREADS_MIN = 32;
const FILES_MIN = 16;

/** What may keep `exclusive` itself from running, or from waiting, where it is started as this process was. */
export function warnings(): string[] {
  const { addressSpace, processes, openFiles } = limits();
  return [
    addressSpace < ADDRESS_SPACE_MIN && "little address space (ulimit -v): a wait may end with 71",
    processes < THREADS_MIN && "few processes and threads (ulimit -u): a run or a wait may end with 71",
    openFiles < FILES_MIN && "few open files (ulimit -n): a wait may end with 71",
    !seesProcesses() && "no /proc: holders cannot be named, and the glibc binary ends with 71",
  ].filter((warning) => warning !== false);
}

/**
 * Prints the checks and the verdict.
 * @param place the directory or store, as text for people
 * @param data what JSON has besides
 * @param facts what else an operator should know of the place
 * @returns true when all is well
 */
export function report(
  place: string,
  checks: Check[],
  json: boolean,
  data: object,
  facts: Record<string, string> = {},
): boolean {
  const ok = checks.every((check) => check.ok);
  const warned = warnings();
  const known = Object.keys(facts).length > 0 && { facts };
  if (json) print(jsonLine({ ...data, ok, checks, warnings: warned, ...known }));
  else {
    for (const { check, ok, details } of checks)
      print(`${ok ? "yes" : ok === false ? "NO " : "?  "}  ${check}: ${details}`);
    for (const [what, details] of Object.entries(facts)) print(`     ${what}: ${details}`);
    for (const warning of warned) print(`warning: ${warning}`);
    print(`${place}: ${ok ? "locks work here" : "locks are unreliable here"}`);
  }
  return ok;
}
