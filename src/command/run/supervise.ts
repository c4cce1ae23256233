/** Supervises the command: forwards signals, mirrors stops, returns its end. */
import { type Change, childChange, type Ending } from "../../os/child-process.ts";
import { descendsFrom } from "../../os/processes.ts";
import {
  dieBySignal,
  exit,
  inForeground,
  isSessionLeader,
  nextSignal,
  type ReceivedSignal,
  raiseDefault,
  SIG,
  send,
} from "../../os/signals.ts";

/** Signals that a terminal sends to its whole foreground process group, the command included: termios(3). */
const TERMINAL_SIGNALS = new Set<number>([
  SIG.INT,
  SIG.QUIT,
  SIG.TSTP,
  SIG.TTIN,
  SIG.TTOU,
  SIG.WINCH,
  SIG.HUP,
]);

/** Grace for a shell to continue the command along with us, in milliseconds; then we continue it. */
const CONTINUE_MS = 20;

/** Follows one command. Each signal that we get reaches the command once. */
export class Supervision {
  #resumed = false;

  /** @param seen collects the numbers of the signals that were sent to us */
  constructor(
    private readonly pid: number,
    private readonly seen?: Set<number>,
  ) {}

  /**
   * The command's end, if it has come. Call it before every wait: a command that exits at once may have done so before
   * SIGCHLD was blocked.
   */
  poll(): Ending | undefined {
    for (let change = childChange(this.pid); change !== undefined; change = childChange(this.pid)) {
      const ending = this.#follow(change);
      if (ending !== undefined) return ending;
    }
    return undefined;
  }

  /** Handles a signal that was sent to us. */
  take(received: ReceivedSignal): void {
    if (received.signal === SIG.CHLD) return;
    this.seen?.add(received.signal);
    if (received.signal === SIG.CONT && this.#resumed) this.#resumed = false;
    else if (!hasReached(this.pid, received)) send(this.pid, received.signal);
  }

  /**
   * The command's end, if the change is that. If job control stopped the command, we stop too: the shell watches us, and
   * continues us both. Not after a SIGSTOP outside the terminal: its sender continues the command alone, and would leave
   * us stopped.
   */
  #follow(change: Change): Ending | undefined {
    if ("exited" in change || "killed" in change) return change;
    if (!("stopped" in change) || (change.stopped === SIG.STOP && !inForeground())) return undefined;
    raiseDefault(change.stopped);
    // Continued. A shell's `fg` continues us both; a SIGCONT to us alone is meant for the command too.
    this.#resumed = true;
    for (let waited = 0; waited < CONTINUE_MS; waited++) {
      const next = childChange(this.pid);
      if (next !== undefined) return this.#follow(next);
      Bun.sleepSync(1);
    }
    send(this.pid, SIG.CONT);
    return undefined;
  }
}

/**
 * Waits for the command's end.
 * @param seen as in `Supervision`
 * @param meanwhile called after each signal, and after each second without one
 */
export function supervise(pid: number, seen?: Set<number>, meanwhile?: () => void): Ending {
  const supervision = new Supervision(pid, seen);
  for (;;) {
    const ending = supervision.poll();
    if (ending !== undefined) return ending;
    const received = nextSignal();
    if (received !== undefined) supervision.take(received);
    meanwhile?.();
  }
}

/** Has this signal reached the command already, from the same sender? */
function hasReached(pid: number, { signal, fromKernel, sender }: ReceivedSignal): boolean {
  // We send ourselves SIGPIPE, when the reader of our output is gone. A `kill 0` in a script must not come back to it.
  if (!fromKernel) return sender === process.pid || (sender !== 0 && descendsFrom(sender, pid));
  if (signal === SIG.HUP && isSessionLeader()) return false;
  return TERMINAL_SIGNALS.has(signal);
}

/** Ends this process as the command ended. */
export function exitLike(ending: Ending): never {
  return "killed" in ending ? dieBySignal(ending.killed) : exit(ending.exited);
}
