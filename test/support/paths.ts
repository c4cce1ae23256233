/** Where the program under test is. */
import { join } from "node:path";

export const root = join(import.meta.dir, "../..");
/** The compiled binary: `npm test` builds it first. */
export const binary = join(root, "dist/exclusive");
/** The library's entry, for scripts that tests write. */
export const library = join(root, "src/index.ts");
