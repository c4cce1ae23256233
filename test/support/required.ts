/** Programs and files of the machine that tests need. */
import { existsSync } from "node:fs";

/**
 * Is this program (by name) or file (by path) installed? Without it the test is skipped and the missing Debian package
 * is reported. With `CI=true` that is a failure.
 */
export function required(program: string, debianPackage: string): boolean {
  if (program.startsWith("/") ? existsSync(program) : Bun.which(program) !== null) return true;
  const message = `${program} is missing: apt-get install ${debianPackage}`;
  if (process.env.CI === "true") throw new Error(message);
  console.warn(`skipped: ${message}`);
  return false;
}
