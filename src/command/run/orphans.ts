/**
 * What a command leaves behind. A command that ends by itself has done its work: what it leaves is a daemon, and the lock is
 * unlocked. A command that was ended by a signal has not: what it leaves is the work, and the lock stays with it.
 */
import { printable } from "../../errors.ts";
import type { EventFields } from "../../events.ts";
import type { Ending } from "../../os/child-process.ts";
import { reapOthers } from "../../os/child-process.ts";
import { clock } from "../../os/clock.ts";
import { SIG } from "../../os/signals.ts";
import type { FileLease } from "../../store/file/file-lease.ts";
import type { EventLog } from "../output/event-log.ts";
import { ProcessTree } from "./process-tree.ts";

/** The signals by which a program is asked, or made, to end. */
const ENDING_SIGNALS: readonly number[] = [SIG.HUP, SIG.INT, SIG.QUIT, SIG.KILL, SIG.TERM];

/**
 * Was the command killed, or did it end after a signal that asked it to end? A shell whose last command was killed exits
 * with 128 and the signal's number: it ended by that signal too.
 * @param seen the signals that reached us, or the command and us, while it ran
 */
export function wasAskedToEnd(ending: Ending, seen: ReadonlySet<number>): boolean {
  return (
    "killed" in ending || ENDING_SIGNALS.some((signal) => seen.has(signal) || ending.exited === 128 + signal)
  );
}

/** Processes that got the same signal as the command need a moment to end. */
const DYING_MS = 200;
const POLL_MS = 10;

/**
 * Leaves the lock to the processes that inherited it.
 * @returns undefined where there are none, and the lock is free; else those that the kernel names to us
 */
export function leaveToHeirs(lease: FileLease): number[] | undefined {
  lease.closeSync();
  // All that inherited the lock from us is still below us. Only where it was passed on otherwise, every process is asked.
  const tree = new ProcessTree({ wrapper: process.pid });
  for (const end = clock() + DYING_MS; !lease.clearSync(); Bun.sleepSync(POLL_MS)) {
    const living = tree.living();
    const heirs = lease.heirs(living);
    // Who keeps a new file for heirs ends when there are none: a moment later the file can be removed.
    if (heirs.length === 0 && !lease.isOursByRecord() && !lease.isKept(living)) {
      lease.clearSync(); // the last one may have ended since
      return undefined;
    }
    if (clock() >= end) {
      const left = heirs.length > 0 ? heirs : lease.heirs();
      return lease.clearSync() ? undefined : left;
    }
    reapOthers(0);
  }
  return undefined;
}

/** Reports that the lock stays. */
export function tellOrphaned(log: EventLog, pids: readonly number[], details: EventFields["orphaned"]): void {
  const count = pids.length === 1 ? "1 process" : `${pids.length} processes`;
  log.tell("orphaned", { ...details, pids }, () => {
    const named =
      pids.length === 0
        ? "processes that the command left"
        : `${count} that the command left (pid ${pids.join(", ")})`;
    return `'${printable(log.name)}' stays locked by ${named}`;
  });
}
