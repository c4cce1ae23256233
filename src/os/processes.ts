/** What the OS says of a holder's process, asked now. */
import type { Holder } from "../holder.ts";
import type { LockStatus } from "../store/store.ts";
import { readText, userName } from "./libc.ts";

const linux = process.platform === "linux";

/** The command line of a process, its arguments parted by spaces; undefined when the OS does not say. */
export function commandLine(pid: number): string | undefined {
  const raw = linux ? readText(`/proc/${pid}/cmdline`) : ps("args=", pid);
  return raw?.replace(/\0$/, "").replaceAll("\0", " ") || undefined;
}

/** Whose process it is: the effective user's name, or number. */
export function userOf(pid: number): string | undefined {
  if (!linux) return ps("user=", pid);
  const uid = /^Uid:\s+\d+\s+(\d+)/m.exec(readText(`/proc/${pid}/status`) ?? "")?.[1];
  return uid === undefined ? undefined : (userName(Number(uid)) ?? uid);
}

/** The parent of a process. */
export function parentOf(pid: number): number | undefined {
  if (!linux) return Number(ps("ppid=", pid)) || undefined;
  const stat = readText(`/proc/${pid}/stat`);
  return stat === undefined ? undefined : Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
}

/** Is it stopped, as by Ctrl-Z? */
export function isStopped(pid: number): boolean {
  const state = linux ? readText(`/proc/${pid}/stat`)?.replace(/^.*\) /s, "") : ps("state=", pid);
  return state?.startsWith("T") ?? false;
}

function ps(field: string, pid: number): string | undefined {
  const { stdout } = Bun.spawnSync(["/bin/ps", "-o", field, "-p", String(pid)]);
  return stdout.toString().trim() || undefined;
}

/**
 * The process to look at for this holder: the command, else the holder; undefined where its pid means nothing here.
 * A pid without a host is the kernel's word, not a record's.
 */
export function visiblePid({ pid, alive, host, commandPid }: Holder): number | undefined {
  if (alive === undefined && host !== undefined) return undefined;
  return commandPid ?? (alive === false ? undefined : pid);
}

/** Adds to locks what the OS says of their holders' processes. */
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
    let said = this.#asked.get(pid);
    if (said === undefined) {
      said = { user: userOf(pid), commandLine: commandLine(pid) };
      this.#asked.set(pid, said);
    }
    return { ...holder, ...said };
  }
}
