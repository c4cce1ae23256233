/** The signal mask that the program was started with. `main.ts` needs this before anything else, so it loads little. */
import { address, libc } from "./libc.ts";
import { allSignals, SIG_BLOCK, SIG_SETMASK } from "./signal-sets.ts";

const { sigprocmask } = libc({ sigprocmask: { args: ["i32", "ptr", "ptr"], returns: "i32" } });
const all = allSignals();

/** The mask that we were started with, and that the command gets. */
export const maskAtStart = new Uint8Array(all.length);

/** Blocks every signal: before the engine starts threads, see `signals.ts`. */
export function blockSignals(): void {
  sigprocmask(SIG_BLOCK, address(all), address(maskAtStart));
}

/** Restores the mask that we were started with: for commands that do not wait for signals. */
export function unblockSignals(): void {
  setMask(maskAtStart);
}

/** Replaces the mask. */
export function setMask(mask: Uint8Array): void {
  sigprocmask(SIG_SETMASK, address(mask), null);
}

/** Adds signals to the mask (SIG_BLOCK), or takes them out (SIG_UNBLOCK). */
export function changeMask(how: number, signals: Uint8Array): void {
  sigprocmask(how, address(signals), null);
}
