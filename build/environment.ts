/**
 * Takes two variables out of Bun's reach: `BUN_OPTIONS`, which adds options such as `--preload FILE`, and `BUN_BE_BUN`,
 * which makes the program behave as plain `bun`. Both would run other code under this program's name, without a lock, and
 * end with any status. The names that Bun looks for get a first byte that no variable begins with; the variables
 * themselves stay in the environment, for the command.
 */
import type { Elf } from "./elf.ts";

/** The names with their surroundings: C strings between NULs, and one of Rust's, which are not terminated. */
const NAMES = ["\0BUN_OPTIONS\0", "BUN_OPTIONSBUN_INSPECT", "\0BUN_BE_BUN\0"] as const;

/** @throws where a name does not occur exactly once */
export function ignoreBunVariables(elf: Elf): void {
  for (const name of NAMES) elf.replaceOnce(".rodata", name, name.replace("BUN_", "\x01UN_"));
}
