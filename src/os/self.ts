/** This program: whether it is compiled, and how it is called. */
import { linux } from "./libc.ts";

/** Where the files are that `bun build --compile` puts into a program. */
export const BUNDLE = "/$bunfs/";

export const isCompiled: boolean = Bun.main.startsWith(BUNDLE);

/** Is this a binary that the build has changed after `bun build`? See `build/patch.ts`. */
export const isPatched: boolean = linux && isCompiled;

/**
 * The command line that starts this program again. On Linux a compiled one is the running file, not what is at its path
 * now: an update may have put another version there, with which we could not talk.
 */
export function ourselves(): string[] {
  if (!isCompiled) return [process.execPath, Bun.main];
  return [linux ? "/proc/self/exe" : process.execPath];
}
