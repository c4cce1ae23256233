/** Changes that a Linux binary needs after `bun build`, because no option of Bun's makes them. Each has its reason in its file. */
import { exitInsteadOfAbort } from "./abort.ts";
import { Elf } from "./elf.ts";
import { ignoreBunVariables } from "./environment.ts";
import { keepProcessState } from "./process-state.ts";
import { recordStart } from "./record-start.ts";
import { keepWhenStripped } from "./strip.ts";

const PATCHES: readonly ((elf: Elf) => void)[] = [
  keepProcessState,
  recordStart,
  ignoreBunVariables,
  keepWhenStripped,
  exitInsteadOfAbort,
];

/** @throws where the program is not what a patch expects: then nothing is written */
export async function patchLinuxBinary(file: string): Promise<void> {
  const elf = new Elf(Buffer.from(await Bun.file(file).bytes()));
  for (const patch of PATCHES) patch(elf);
  await Bun.write(file, elf.bytes, { mode: 0o755 });
}
