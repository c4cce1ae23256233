/**
 * Keeps Bun from changing process state that the wrapped command inherits.
 *
 * Before any of our code runs, Bun raises the soft limit of open files (RLIMIT_NOFILE) to the hard one, by `setrlimit`, and
 * ignores SIGPIPE and SIGXFSZ, by `signal`. Afterwards nothing tells what they were. So in a Linux binary these two imported
 * symbols are renamed, in `.dynstr`, to harmless ones with the same arguments. Our own calls are not affected: they are
 * looked up in the C library by name. (Bun also removes a listener of `process.off` by `signal`: it stays, idle.)
 */
const HARMLESS = { setrlimit: "getrlimit", signal: "abs" } as const;

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
