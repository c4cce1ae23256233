/**
 * Gives the engine's own death a status that means nothing else.
 *
 * Where memory or threads run out, the engine calls abort(3): a screen of banner, status 134, a core file. In a Linux binary
 * this code takes its place: it writes one sentence and exits with 71. It uses system calls alone, and no stack.
 */
import type { Elf } from "./elf.ts";

const SENTENCE =
  "exclusive: cannot run here: the engine gave up (too little memory or address space, too few threads, or no /proc)\n";
const STATUS = 71;

/** Its place: a function for native addons, of which a compiled program has none. */
const HOST = "napi_create_function";

export function exitInsteadOfAbort(elf: Elf): void {
  const address = elf.overlay(HOST, () => (elf.arm64 ? arm64() : x64()));
  elf.redirect("abort", address);
}

/** `write(2, SENTENCE, length); exit_group(71);` */
function x64(): Buffer {
  const code = [
    [0xb8, ...i32(1)], // mov eax, SYS_write
    [0xbf, ...i32(2)], // mov edi, 2
    [0x48, 0x8d, 0x35, ...i32(19)], // lea rsi, [rip + to the sentence]
    [0xba, ...i32(SENTENCE.length)], // mov edx, length
    [0x0f, 0x05], // syscall
    [0xb8, ...i32(231)], // mov eax, SYS_exit_group
    [0xbf, ...i32(STATUS)], // mov edi, 71
    [0x0f, 0x05], // syscall
  ];
  return Buffer.concat([Buffer.from(code.flat()), Buffer.from(SENTENCE)]);
}

/** The same. */
function arm64(): Buffer {
  const mov = (register: number, value: number) => 0xd2800000 + value * 32 + register;
  const svc = 0xd4000001;
  const adrX1 = (words: number) => 0x10000001 + words * 32;
  const code = [
    mov(8, 64), // SYS_write
    mov(0, 2),
    adrX1(6), // from here to behind the last instruction
    mov(2, SENTENCE.length),
    svc,
    mov(8, 94), // SYS_exit_group
    mov(0, STATUS),
    svc,
  ];
  return Buffer.concat([Buffer.from(code.flatMap((word) => i32(word))), Buffer.from(SENTENCE)]);
}

const i32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
