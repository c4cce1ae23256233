/** Signals to one process, never to a later one with the same pid. */
import { codeOf } from "./errors.ts";
import { close } from "./files.ts";
import { type CFunction, type Code, failureOf, libc, linux } from "./libc.ts";

// By their numbers, the same on x86 and ARM: older C libraries have no functions for them.
const SYS_pidfd_send_signal = 424;
const SYS_pidfd_open = 434;

let syscall: CFunction | undefined;
function call(number: number, first: number, second: number): number {
  syscall ??= libc({ syscall: { args: ["i64", "i64", "i64", "i64", "i64"], returns: "i32" } }).syscall;
  return syscall(number, first, second, 0, 0);
}

/**
 * A process, held by a descriptor: pidfd_open(2), Linux 5.3. A process that is looked at after its handle was made is the
 * one that gets the signals. Elsewhere the handle is the pid, and a moment is left in which it may change hands.
 */
export class ProcessHandle implements Disposable {
  readonly #fd: number = -1;
  readonly #failure: Code | undefined;

  constructor(readonly pid: number) {
    if (!linux) return;
    this.#fd = call(SYS_pidfd_open, pid, 0);
    this.#failure = failureOf(this.#fd);
  }

  /** Sends a signal; 0 only asks whether we may. Returns the code of the failure. */
  send(signal: number): Code | undefined {
    if (this.#fd >= 0) return failureOf(call(SYS_pidfd_send_signal, this.#fd, signal));
    if (this.#failure === "ESRCH") return "ESRCH";
    try {
      process.kill(this.pid, signal);
      return undefined;
    } catch (error) {
      return codeOf(error);
    }
  }

  [Symbol.dispose](): void {
    if (this.#fd >= 0) close(this.#fd);
  }
}
