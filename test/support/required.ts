/** What a test needs of the machine. */
import { existsSync } from "node:fs";

/**
 * Is a program (by name) or a file (by path) there that a test needs and this package does not bring? Without it the
 * test is skipped, saying what to install; with `CI=true` that is a failure.
 */
export function required(program: string, debianPackage: string): boolean {
  if (program.startsWith("/") ? existsSync(program) : Bun.which(program) !== null) return true;
  const message = `${program} is missing: apt-get install ${debianPackage}`;
  if (process.env.CI === "true") throw new Error(message);
  console.warn(`skipped: ${message}`);
  return false;
}
