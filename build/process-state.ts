/**
 * Keeps Bun from changing process state that the wrapped command inherits.
 *
 * Before any of our code runs, Bun raises the soft limit of open files (RLIMIT_NOFILE) to the hard one, by `setrlimit`, and
 * ignores SIGPIPE and SIGXFSZ, by `signal`. Afterwards nothing tells what they were. So in a Linux binary these two imported
 * symbols are renamed, in `.dynstr`, to harmless ones with the same arguments. Our own calls are not affected: they are
 * looked up in the C library by name. (Bun also removes a listener of `process.off` by `signal`: it stays, idle.)
 */
import type { Elf } from "./elf.ts";

const HARMLESS = { setrlimit: "getrlimit", signal: "abs" } as const;

/** @throws where the program does not import each name exactly once: then Bun does it in another way, and this must follow */
export function keepProcessState(elf: Elf): void {
  for (const [imported, harmless] of Object.entries(HARMLESS))
    elf.replaceOnce(".dynstr", `\0${imported}\0`, `\0${harmless}\0`.slice(0, imported.length + 1));
}
