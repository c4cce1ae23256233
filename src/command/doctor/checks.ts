/** The results of `doctor`. */
import { print } from "../output/print.ts";

export interface Check {
  check: "excludes" | "freed by release" | "freed by kill" | "local" | "tokens grow";
  /** Undefined where it cannot be known. */
  ok?: boolean | undefined;
  details: string;
}

/** Time limit for a process to start, and for the kernel to free the locks of a killed one. */
export const PATIENCE_MS = 10_000;

export function printChecks(checks: Check[]): void {
  for (const { check, ok, details } of checks)
    print(`${ok ? "yes" : ok === false ? "NO " : "?  "}  ${check}: ${details}`);
}
