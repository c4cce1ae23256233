/** Adds to a lock's status what the OS reports about the processes of its holders. */
import type { Holder } from "../../holder.ts";
import { commandLine, userOf } from "../../os/processes.ts";
import type { LockStatus } from "../../store/store.ts";

/**
 * Returns the process to describe for this holder: the command, else the holder itself; undefined where its pid means
 * nothing on this host. A holder without `host` comes from the kernel's lock table, not from a record.
 */
export function visiblePid({ pid, alive, host, commandPid }: Holder): number | undefined {
  if (alive === undefined && host !== undefined) return undefined;
  return commandPid ?? (alive === false ? undefined : pid);
}

/** Asks the OS once for each process, however many locks it holds. */
export class Describer {
  readonly #known = new Map<number, Pick<Holder, "user" | "commandLine">>();

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
    let facts = this.#known.get(pid);
    if (facts === undefined) {
      facts = { user: userOf(pid), commandLine: commandLine(pid) };
      this.#known.set(pid, facts);
    }
    return { ...holder, ...facts };
  }
}
