/** The signal mask that the program was started with. Kept apart: `main.ts` needs this much before anything else. */
import { address, libc } from "./libc.ts";
import { allSignals, SIG_BLOCK, SIG_SETMASK } from "./signal-sets.ts";

const { sigprocmask } = libc({ sigprocmask: { args: ["i32", "ptr", "ptr"], returns: "i32" } });
const all = allSignals();

/** The mask that we were started with: the command's too. */
export const maskAtStart = new Uint8Array(all.length);

/** Blocks every signal: before the engine starts threads, see `signals.ts`. */
export function blockSignals(): void {
  sigprocmask(SIG_BLOCK, address(all), address(maskAtStart));
}

/** Back to the mask that we were started with: for commands that wait for no signals. */
export function unblockSignals(): void {
  sigprocmask(SIG_SETMASK, address(maskAtStart), null);
}
