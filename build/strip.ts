/**
 * Lets strip(1) and objcopy(1) keep the program.
 *
 * Bun's code finds ours by an address in 8 bytes that no section covers: `bun build` moves the section `.bun` that had them.
 * Those tools fill such a gap with zeros, and what is left is plain Bun: `exclusive run backup` would run the package
 * script `backup`, without a lock.
 */
import type { Elf } from "./elf.ts";

const ADDRESS_SIZE = 8;

/** Makes the section before the address cover it. That changes nothing at run time: only segments are loaded. */
export function keepWhenStripped(elf: Elf): void {
  const { header, size } = elf.sectionBefore(elf.section(".bun").address);
  elf.bytes.writeBigUInt64LE(BigInt(size + ADDRESS_SIZE), header + 0x20); // sh_size
}
