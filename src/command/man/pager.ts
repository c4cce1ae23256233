/** Shows a page with man(1), which has a pager. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";

/** @returns false where there is no man(1), or it does not show the page */
export function showWithMan(page: string): boolean {
  if (Bun.which("man") === null) return false;
  const directory = mkdtempSync("/tmp/exclusive-man-");
  process.on("SIGINT", () => {}); // the pager's own
  try {
    const file = `${directory}/exclusive.1`; // a path with a slash is a file, for every man(1)
    writeFileSync(file, page);
    return Bun.spawnSync(["man", file], { stdio: ["inherit", "inherit", "ignore"] }).success;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
