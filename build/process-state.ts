/**
 * Keeps Bun from changing process state that the wrapped command inherits. `src/os/signal-mask.ts` has the whole list.
 *
 * Before any of our code runs, Bun changes things that nothing tells afterwards. In a Linux binary the imported symbols by
 * which it does so are renamed, in `.dynstr`, to harmless ones that take the same arguments. Our own calls are not affected:
 * they are looked up in the C library by name. What no rename can keep is recorded before Bun starts: `record-start.ts`.
 */
import { recordStart } from "./record-start.ts";

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
export async function keepProcessState(file: string): Promise<void> {
  const program = Buffer.from(await Bun.file(file).bytes());
  const names = dynamicStrings(program);
  for (const [imported, harmless] of Object.entries(HARMLESS)) {
    const wanted = Buffer.from(`\0${imported}\0`);
    const at = names.indexOf(wanted);
    if (at < 0 || names.indexOf(wanted, at + 1) >= 0)
      throw new Error(`${file}: expected one import of ${imported}`);
    names.write(`${harmless}\0`.slice(0, imported.length), at + 1);
  }
  recordStart(program);
  await Bun.write(file, program, { mode: 0o755 });
}

/** `.dynstr` of a 64-bit little-endian ELF file, elf(5): its only string table that is loaded. */
function dynamicStrings(elf: Buffer): Buffer {
  const SHT_STRTAB = 3;
  const SHF_ALLOC = 2n;
  const sections = Number(elf.readBigUInt64LE(0x28));
  for (let i = 0; i < elf.readUInt16LE(0x3c); i++) {
    const header = elf.subarray(sections + i * 64, sections + (i + 1) * 64);
    if (header.readUInt32LE(4) !== SHT_STRTAB || !(header.readBigUInt64LE(8) & SHF_ALLOC)) continue;
    const offset = Number(header.readBigUInt64LE(0x18));
    return elf.subarray(offset, offset + Number(header.readBigUInt64LE(0x20)));
  }
  throw new Error("no dynamic string table");
}
