/** Signals to the process that is meant, not to a later one that got its pid. */
import { checked, E, libc } from "./libc.ts";

const linux = process.platform === "linux";

// By their numbers, the same on x86 and ARM: older C libraries have no functions for them.
const SYS_pidfd_send_signal = 424;
const SYS_pidfd_open = 434;

const c = libc({
  kill: { args: ["i32", "i32"], returns: "i32" },
  close: { args: ["i32"], returns: "i32" },
  ...(linux && { syscall: { args: ["i64", "i64", "i64", "i64", "i64"], returns: "i32" } as const }),
});

/**
 * A process, held by a descriptor (pidfd_open(2), Linux 5.3): look at it after it is pinned, and what is signalled is
 * what was looked at. Where there is no such thing it is the pid, and a moment is left in which it may change hands.
 */
export class PinnedProcess implements Disposable {
  readonly #fd: number;

  constructor(readonly pid: number) {
    this.#fd = linux ? checked(c.syscall!(SYS_pidfd_open, pid, 0, 0, 0)) : -1;
  }

  /** Sends a signal; 0 only asks whether we may. Returns 0, or minus the errno. */
  send(signal: number): number {
    if (this.#fd >= 0) return checked(c.syscall!(SYS_pidfd_send_signal, this.#fd, signal, 0, 0));
    return this.#fd === -E.ESRCH ? -E.ESRCH : checked(c.kill(this.pid, signal));
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) c.close(this.#fd);
  }
}
