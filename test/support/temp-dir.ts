/** Directories that last as long as a scope. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A directory of its own for one test, gone when it ends. */
export class TempDir implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "exclusive-test-"));
  file(name: string): string {
    return join(this.path, name);
  }
  /** The lock file of this name, one that needs no quoting. */
  lockfile(name: string): string {
    return this.file(`exclusive_${name}.lock`);
  }
  list(): string[] {
    return readdirSync(this.path).sort();
  }
  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
