/** When a lock that was refused is believed to be held: some holds last for a moment only. */
import type { Holder, Mode } from "../../errors.ts";
import type { FileStatus } from "../../os/files.ts";
import { fileKey, kernelLocks } from "../../os/lock-table.ts";

/** Retries before a momentary hold is believed to be real: 31 ms in all, among readers one second. */
const RETRIES = 5;
const RETRIES_AMONG_READERS = 65;
/** The pause before each retry is twice the last one, up to this many milliseconds. */
const PAUSE_MAX = 16;
/** How often a row of retries starts again because the lock has changed hands: for a few seconds. */
const CHANGES_MAX = 100;
/** How often it starts again where the kernel shows no holder at all: it may be in a pid namespace that we cannot see. */
const BLANKS_MAX = 3;

/** A refusal by the kernel. */
export interface Refused {
  /** The holder by the record. */
  holder: Holder;
  file: FileStatus;
}

/** Counts the retries of one attempt to take a lock. */
export class Patience {
  #retries = 0;
  #changes = 0;
  #blanks = 0;
  #seen: number[] = [];

  /** @returns milliseconds to pause before the next try; undefined when the lock is held */
  pause({ holder, file }: Refused, wanted: Mode): number | undefined {
    const most = retriesBeforeRefusal(holder, wanted);
    if (most === RETRIES && (this.#retries === 0 || this.#retries >= most)) this.#look(file);
    if (this.#retries >= most) return undefined;
    return Math.min(2 ** this.#retries++, PAUSE_MAX);
  }

  /**
   * Starts the retries again when another process has the lock than at the last look. `exclusive wait` takes a free lock
   * for a moment: with many of them, one after the other has it, and none holds it.
   */
  #look(file: FileStatus): void {
    const now = kernelLocks().get(fileKey(file))?.pids ?? [];
    const blank = now.length === 0 && this.#seen.length === 0;
    const again = blank
      ? ++this.#blanks <= BLANKS_MAX
      : !now.some((pid) => this.#seen.includes(pid)) && ++this.#changes <= CHANGES_MAX;
    this.#seen = now;
    if (again) this.#retries = 0;
  }
}

/**
 * The number of retries before a lock is believed to be held. A momentary hold is `status` probing it, `wait` passing
 * through, a killed process that is not gone yet, or a holder that has not written its record yet. A departing reader
 * probes with LOCK_EX to learn whether it was the last; with many readers, each retry may meet another probe.
 */
function retriesBeforeRefusal(holder: Holder, wanted: Mode): number {
  if (wanted === "shared" && holder.mode === "shared") return RETRIES_AMONG_READERS;
  return holder.pid === undefined || holder.alive === false ? RETRIES : 0;
}
