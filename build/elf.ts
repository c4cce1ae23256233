/** A 64-bit little-endian Linux program whose bytes are changed after `bun build`: elf(5). */

/** A section, as its header describes it. */
export interface Section {
  /** Where its header is in the file. */
  header: number;
  address: number;
  offset: number;
  size: number;
}

const SECTION_SIZE = 64;
const SEGMENT_SIZE = 56;
const SYMBOL_SIZE = 24;
const RELOCATION_SIZE = 24;
const PT_LOAD = 1;
const EM_AARCH64 = 183;

/** Every method throws where the program is not as expected: then Bun has changed, and the patch must follow. */
export class Elf {
  readonly arm64: boolean;
  readonly #sections = new Map<string, Section>();

  constructor(readonly bytes: Buffer) {
    this.arm64 = bytes.readUInt16LE(0x12) === EM_AARCH64;
    const table = this.u64(0x28);
    const at = (i: number): Section => {
      const header = table + i * SECTION_SIZE;
      return {
        header,
        address: this.u64(header + 0x10),
        offset: this.u64(header + 0x18),
        size: this.u64(header + 0x20),
      };
    };
    const names = at(bytes.readUInt16LE(0x3e)).offset;
    for (let i = 0; i < bytes.readUInt16LE(0x3c); i++) {
      const section = at(i);
      this.#sections.set(this.#text(names + bytes.readUInt32LE(section.header)), section);
    }
  }

  u64(offset: number): number {
    return Number(this.bytes.readBigUInt64LE(offset));
  }

  /** Where the program starts. */
  get entry(): number {
    return this.u64(0x18);
  }
  set entry(address: number) {
    this.bytes.writeBigUInt64LE(BigInt(address), 0x18);
  }

  section(name: string): Section {
    const found = this.#sections.get(name);
    if (found === undefined) throw new Error(`the program has no section ${name}`);
    return found;
  }

  /** The one section whose bytes are followed by this 64-bit value. */
  sectionBefore(value: number): Section {
    const found = [...this.#sections.values()].filter(
      ({ offset, size }) =>
        size > 0 && offset + size + 8 <= this.bytes.length && this.u64(offset + size) === value,
    );
    if (found.length !== 1)
      throw new Error(`expected one section before the value ${value}, not ${found.length}`);
    return found[0]!;
  }

  /** The bytes of a section; writing to them changes the program. */
  bytesOf(name: string): Buffer {
    const { offset, size } = this.section(name);
    return this.bytes.subarray(offset, offset + size);
  }

  /** Overwrites bytes that occur exactly once in a section. */
  replaceOnce(section: string, old: string, now: string): void {
    if (now.length > old.length) throw new Error(`${JSON.stringify(now)} does not fit`);
    const bytes = this.bytesOf(section);
    const at = bytes.indexOf(old, 0, "latin1");
    if (at < 0 || bytes.indexOf(old, at + 1, "latin1") >= 0)
      throw new Error(`expected ${JSON.stringify(old)} once in ${section}`);
    bytes.write(now, at, "latin1");
  }

  /** The body of a function that the program exports. */
  exported(name: string): { address: number; size: number } {
    const symbols = this.section(".dynsym");
    for (let at = symbols.offset; at < symbols.offset + symbols.size; at += SYMBOL_SIZE) {
      if (this.#nameOf(at) !== name) continue;
      return { address: this.u64(at + 8), size: this.u64(at + 16) };
    }
    throw new Error(`the program does not export ${name}`);
  }

  /**
   * Puts code over the body of an exported function that is never called: no segment has to be added.
   * @param code the code, made for this address
   */
  overlay(name: string, code: (address: number) => Buffer): number {
    const { address, size } = this.exported(name);
    const made = code(address);
    if (made.length > size) throw new Error(`${name} has ${size} bytes, ${made.length} are needed`);
    made.copy(this.bytes, this.#fileOffset(address));
    return address;
  }

  /** Makes each call of an imported function jump to this address instead: by its entry in `.plt`. */
  redirect(imported: string, address: number): void {
    const entry = this.#stubOf(imported);
    const { address: start, offset } = this.section(".plt");
    const here = start + entry - offset;
    if (this.arm64) {
      this.bytes.writeUInt32LE((0x14000000 | (((address - here) >> 2) & 0x3ffffff)) >>> 0, entry); // b
    } else {
      this.bytes[entry] = 0xe9; // jmp; the rest stays
      this.bytes.writeInt32LE(address - here - 5, entry + 1);
    }
  }

  /** Where the entry of `.plt` is that jumps through the import's slot. */
  #stubOf(imported: string): number {
    const slot = this.#slotOf(imported);
    const plt = this.section(".plt");
    for (let at = plt.offset; at < plt.offset + plt.size; at += 16)
      if (this.#slotUsedAt(at, plt.address + at - plt.offset) === slot) return at;
    throw new Error(`nothing in .plt jumps to ${imported}`);
  }

  /** The slot through which the code at this place jumps; undefined where it is other code. */
  #slotUsedAt(at: number, address: number): number | undefined {
    if (!this.arm64)
      return this.bytes.readUInt16LE(at) === 0x25ff
        ? address + 6 + this.bytes.readInt32LE(at + 2)
        : undefined;
    const [adrp, ldr] = [this.bytes.readUInt32LE(at), this.bytes.readUInt32LE(at + 4)];
    // adrp x16, PAGE; ldr x17, [x16, #OFFSET]
    if ((adrp & 0x9f00001f) >>> 0 !== 0x90000010 || (ldr & 0xffc003ff) >>> 0 !== 0xf9400211) return undefined;
    const pages = (((adrp >> 5) & 0x7ffff) << 2) | ((adrp >> 29) & 3);
    return Math.floor(address / 4096) * 4096 + ((pages << 11) >> 11) * 4096 + ((ldr >> 10) & 0xfff) * 8;
  }

  #slotOf(imported: string): number {
    const relocations = this.section(".rela.plt");
    const symbols = this.section(".dynsym").offset;
    for (let at = relocations.offset; at < relocations.offset + relocations.size; at += RELOCATION_SIZE) {
      const symbol = symbols + this.bytes.readUInt32LE(at + 12) * SYMBOL_SIZE;
      if (this.#nameOf(symbol) === imported) return this.u64(at);
    }
    throw new Error(`the program does not import ${imported}`);
  }

  #nameOf(symbol: number): string {
    return this.#text(this.section(".dynstr").offset + this.bytes.readUInt32LE(symbol));
  }

  #text(offset: number): string {
    return this.bytes.toString("latin1", offset, this.bytes.indexOf(0, offset));
  }

  #fileOffset(address: number): number {
    const table = this.u64(0x20);
    for (let i = 0; i < this.bytes.readUInt16LE(0x38); i++) {
      const segment = table + i * SEGMENT_SIZE;
      const start = this.u64(segment + 0x10);
      if (this.bytes.readUInt32LE(segment) !== PT_LOAD) continue;
      if (address >= start && address < start + this.u64(segment + 0x20))
        return this.u64(segment + 8) + address - start;
    }
    throw new Error(`nothing is loaded at ${address}`);
  }
}
