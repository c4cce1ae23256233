/** The paths of the program under test. */
import { join } from "node:path";

export const root = join(import.meta.dir, "../..");
/** The compiled binary: `npm test` builds it first. */
export const binary = join(root, "dist/exclusive");
/** The entry of the library, for scripts that tests write. */
export const library = join(root, "src/index.ts");
