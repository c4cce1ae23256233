/** The instructions that the build puts into a binary are those of the assembly source. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { INSTRUCTIONS } from "../../build/record-start.ts";
import { root } from "../support/paths.ts";
import { command } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

for (const [machine, { source, prefix, debianPackage }] of Object.entries({
  62: { source: "record-start-x64.S", prefix: "x86_64-linux-gnu-", debianPackage: "binutils" },
  183: {
    source: "record-start-arm64.S",
    prefix: "aarch64-linux-gnu-",
    debianPackage: "binutils-aarch64-linux-gnu",
  },
})) {
  const here = process.platform === "linux" && required(`${prefix}as`, debianPackage);
  test.if(here)(`${source} assembles to the bytes in record-start.ts`, async () => {
    using dir = new TempDir();
    const [object, bytes] = [dir.file("code.o"), dir.file("code.bin")];
    expect(await command([`${prefix}as`, "-o", object, `${root}/build/${source}`])).toMatchObject({
      status: 0,
      stderr: "",
    });
    await command([`${prefix}objcopy`, "-O", "binary", "-j", ".text", object, bytes]);
    expect(readFileSync(bytes).toString("hex")).toBe(INSTRUCTIONS[Number(machine)]!);
  });
}
