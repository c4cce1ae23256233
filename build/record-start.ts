/**
 * Puts a few instructions of our own before the first ones of a Linux binary. They record which signals were ignored, and
 * whether SIGPWR was blocked, when the program was started: once Bun has run, nothing tells. Before them lies a handler of
 * fault signals, which no function of the C library can be: `passFaultsOn` in `src/os/signal-mask.ts` uses it.
 *
 * - Where the record goes: the value of AT_FLAGS in the auxiliary vector, which Linux leaves 0 and nothing reads.
 *   `src/os/signal-mask.ts` gets it by getauxval(3). Plain Bun, as the npm package runs on, has no record.
 * - Where the instructions go: over the body of a function for native addons. No addon is ever loaded.
 * - What they are: `record-start-x64.S` and `record-start-arm64.S`. These bytes are made of them, and a test makes them
 *   again: no assembler is needed to build. The last four are the jump to the program's own start.
 */
import type { Elf } from "./elf.ts";

const HOST = "napi_create_threadsafe_function";

const EM_X86_64 = 62;
const EM_AARCH64 = 183;

/** Bytes of the handler, in front of the program's entry. */
export const HANDLER_BYTES = 96;

/** The instructions, as hexadecimal digits, for each machine of elf(5). */
export const INSTRUCTIONS: Readonly<Record<number, string>> = {
  [EM_X86_64]:
    "48818a28010000f8040000837e08007f20c74608ffffffff4189f8b8270000000f0589c74889f24489c6b8810000000f05c3000000000000" +
    "00000000000000000000000000000000000000000000000000000000000000000000000000000000524c8d642410498b4424f84d8d64c408" +
    "4983c40849837c24f80075f4498b04244885c00f84850000004883f80874064983c410ebe74883ec284531edbb40000000b80d00000089df" +
    "31f64889e241ba080000000f054d01ed48833c2401750349ffc5ffcb75dbb80e00000031ff31f64889e241ba080000000f05488b0424480f" +
    "bae01d7305490fbaed084d896c24084889e731c0b904000000f348abb00dbf1e0000004889e631d20f054883c4285ae900000000",
  [EM_AARCH64]:
    "491440f90a9f80d229010aaa491400f9290840b93f0100714c01005409008012290800b9e90300aa881580d2010000d4e20301aae10309aa" +
    "481180d2010000d4c0035fd600000000000000000000000000000000000000000000000000000000ea0340f9e9430091290d0a8b2a8540f8" +
    "eaffffb52a0140f90a0500b45f2100f16000005429410091fbffff17ffc300d1ed0300aa0b0080d20c0880d2c81080d2e0030caa010080d2" +
    "e2030091030180d2010000d4ea0340f95f0500f1ea179f9a4b050b8b8c0500f1a1feff54e81080d2000080d2010080d2e2030091030180d2" +
    "010000d4ea0340f94a755dd36b210aaa2b0500f9ff7f00a9ff7f01a9c81080d2c00380d2e1030091020080d2010000d4ffc30091e0030daa" +
    "00000014",
};

/** @throws where the program has no such function, or too small a one */
export function recordStart(elf: Elf): void {
  const start = elf.entry;
  const handler = elf.overlay(HOST, (address) => {
    const code = Buffer.from(INSTRUCTIONS[elf.arm64 ? EM_AARCH64 : EM_X86_64]!, "hex");
    const jump = code.length - 4;
    if (elf.arm64) {
      const distance = ((start - (address + jump)) / 4) & 0x3ff_ffff; // in instructions, from this one
      code.writeUInt32LE((0x1400_0000 | distance) >>> 0, jump);
    } else {
      code.writeInt32LE(start - (address + code.length), jump); // in bytes, from the next one
    }
    return code;
  });
  elf.entry = handler + HANDLER_BYTES;
}
