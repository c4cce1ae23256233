/** Directories that are deleted when their scope ends. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A new directory, deleted when the scope ends. */
export class TempDir implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "exclusive-test-"));
  file(name: string): string {
    return join(this.path, name);
  }
  /** The path of the lock file of this name, which must need no quoting. */
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
