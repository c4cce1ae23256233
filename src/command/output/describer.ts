/** Adds to holders what the OS shows of their processes. */
import type { Holder } from "../../holder.ts";
import { commandLine, userOf } from "../../os/processes.ts";
import type { LockStatus } from "../../store/store.ts";

/**
 * The process to look at for this holder: the command, else the holder; undefined where its pid means nothing here. A holder
 * without `host` came from /proc/locks, not from a record.
 */
export function visiblePid({ pid, alive, host, commandPid }: Holder): number | undefined {
  if (alive === undefined && host !== undefined) return undefined;
  return commandPid ?? (alive === false ? undefined : pid);
}

/** Describes many locks; asks once for each process. */
export class Describer {
  readonly #asked = new Map<number, Pick<Holder, "user" | "commandLine">>();

  describe(lock: LockStatus): LockStatus {
    return {
      ...lock,
      ...(lock.holder && { holder: this.#describe(lock.holder) }),
      ...(lock.others && { others: lock.others.map((holder) => this.#describe(holder)) }),
      ...(lock.slots && { slots: lock.slots.map((slot) => this.describe(slot)) }),
    };
  }

  #describe(holder: Holder): Holder {
    const pid = visiblePid(holder);
    if (pid === undefined) return holder;
    let shown = this.#asked.get(pid);
    if (shown === undefined) {
      shown = { user: userOf(pid), commandLine: commandLine(pid) };
      this.#asked.set(pid, shown);
    }
    return { ...holder, ...shown };
  }
}
