/** The end of a command whose lock is lost, or whose wrapper is gone. */
import { clock } from "../../os/clock.ts";
import { SIG } from "../../os/signals.ts";
import type { CommandTree } from "./process-tree.ts";

const POLL_MS = 20;

/**
 * Sends SIGTERM to every process of the command, and from `killAt` on SIGKILL to what is left; without SIGTERM if that
 * time has already come. Resolves when no process is left.
 * @param killAt on `clock()`
 * @param searchUntil not over before this time, on `clock()`: a first process may still appear
 * @returns the largest number of processes that were alive at once
 */
export async function endTree(tree: CommandTree, killAt: number, searchUntil = 0): Promise<number> {
  let most = 0;
  for (;;) {
    const now = clock();
    const terminated = most > 0;
    const alive =
      now >= killAt ? tree.signal(SIG.KILL) : terminated ? tree.living().length : tree.signal(SIG.TERM);
    most = Math.max(most, alive);
    if (alive === 0 && now >= searchUntil) return most;
    await Bun.sleep(POLL_MS);
  }
}
