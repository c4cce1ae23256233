/** Checks that `exclusive doctor` makes, and their report. */
import { jsonLine, print } from "../output/print.ts";

/** The result of one check. */
export interface Check {
  check: "excludes" | "freed by release" | "freed by kill" | "local" | "tokens grow";
  /** Undefined where it cannot be told. */
  ok?: boolean | undefined;
  details: string;
}

/** Time for a process to start, and for the kernel to free the lock of a killed one. */
export const PATIENCE_MS = 10_000;

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
  if (json) print(jsonLine({ ...data, ok, checks, ...(Object.keys(facts).length > 0 && { facts }) }));
  else {
    for (const { check, ok, details } of checks)
      print(`${ok ? "yes" : ok === false ? "NO " : "?  "}  ${check}: ${details}`);
    for (const [what, details] of Object.entries(facts)) print(`     ${what}: ${details}`);
    print(`${place}: ${ok ? "locks work here" : "locks are not to be relied on here"}`);
  }
  return ok;
}
