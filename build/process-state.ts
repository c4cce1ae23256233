/**
 * Keeps Bun from changing process state that the wrapped command inherits. `src/os/signal-mask.ts` has the whole list.
 *
 * Before any of our code runs, Bun changes things that nothing tells afterwards. In a Linux binary the imported symbols by
 * which it does so are renamed, in `.dynstr`, to harmless ones that take the same arguments. Our own calls are not affected:
 * they are looked up in the C library by name. What no rename can keep is recorded before Bun starts: `record-start.ts`.
 */
import type { Elf } from "./elf.ts";

/** What Bun calls, and what is called instead. */
const HARMLESS = {
  /** Raises the soft limit of open files (RLIMIT_NOFILE) to the hard one. */
  setrlimit: "getrlimit",
  /**
   * Saves a terminal's modes, and where that succeeds handles SIGINT and SIGTERM. getpid(2) returns no 0, which is "no
   * terminal". Raw mode of `process.stdin` and `prompt()` do not work then: nothing uses them.
   */
  tcgetattr: "getpid",
  /** Puts these modes back at exit, over what another process has set meanwhile. */
  tcsetattr: "getpid",
  /**
   * Asks for SIGKILL at the parent's death, where BUN_FEATURE_FLAG_NO_ORPHANS is set. abs(3) returns the option, which is
   * not 0: "failed". The other uses, names of threads and of mappings, may fail.
   */
  prctl: "abs",
} as const;

/** @throws where the program does not import each name exactly once: then Bun does it in another way, and this must follow */
export function keepProcessState(elf: Elf): void {
  for (const [imported, harmless] of Object.entries(HARMLESS))
    elf.replaceOnce(".dynstr", `\0${imported}\0`, `\0${harmless}\0`.slice(0, imported.length + 1));
}
