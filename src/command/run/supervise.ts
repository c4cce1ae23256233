/**
 * Supervises the command: forwards signals, mirrors stops, returns its end.
 *
 * A terminal sends its signals to the process group in its foreground. The command has one of them where it is in our group.
 * A command that made a group of its own, as timeout(1) does, led the foreground's group if we were not there: so the
 * terminal's signals are sent on to its group, and it gets the terminal when it needs it. Any other signal that we get is
 * forwarded. A process that signalled our whole group has reached the command already, which then gets the signal twice:
 * the kernel does not tell it from one to us alone, and that one must not be lost.
 */
import { type Change, childChange, type Ending } from "../../os/child-process.ts";
import { passFaultsOn } from "../../os/signal-mask.ts";
import {
  dieBySignal,
  exit,
  isSessionLeader,
  nextSignal,
  type ReceivedSignal,
  raiseDefault,
  SIG,
  send,
} from "../../os/signals.ts";
import {
  foregroundGroup,
  groupOf,
  hasStopped,
  inForeground,
  ownGroup,
  setForeground,
} from "../../os/terminal.ts";

/** Signals that a terminal sends to its whole foreground process group: termios(3). */
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

/** Follows one command. Each signal that we get reaches the command. */
export class Supervision {
  #resumed = false;
  /** The command's own group, to which we have given the terminal. */
  #foreground: number | undefined;

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
      if (ending === undefined) continue;
      // The terminal is still that of a group that has ended, or whose leader has.
      if (this.#foreground !== undefined && foregroundGroup() === this.#foreground) setForeground(ownGroup());
      return ending;
    }
    return undefined;
  }

  /** Handles a signal that was sent to us. */
  take(received: ReceivedSignal): void {
    const { signal, fromKernel, sender } = received;
    if (signal === SIG.CHLD) return;
    this.seen?.add(signal);
    if (signal === SIG.CONT && this.#resumed) this.#resumed = false;
    else if (fromKernel && TERMINAL_SIGNALS.has(signal) && !(signal === SIG.HUP && isSessionLeader()))
      this.#passOn(signal);
    // SIGPIPE comes from ourselves where the reader of what we write is gone.
    else if (signal !== SIG.PIPE || sender !== process.pid) send(this.pid, signal);
  }

  /** What a terminal has sent to our group reaches the command's, too. */
  #passOn(signal: number): void {
    if (groupOf(this.pid) !== ownGroup()) send(this.#leads() ? -this.pid : this.pid, signal);
  }

  /**
   * The command's end, if the change is that. If job control stopped the command, we stop too: the shell watches us, and
   * continues us both. Not after a SIGSTOP outside the terminal: its sender continues the command alone, and would leave
   * us stopped.
   */
  #follow(change: Change): Ending | undefined {
    if ("exited" in change || "killed" in change) return change;
    if (!("stopped" in change) || this.#isBackground(change.stopped)) return undefined;
    if (isForTerminal(change.stopped) && this.#giveTerminal()) return undefined;
    raiseDefault(change.stopped);
    // Continued. A shell's `fg` continues us both; a SIGCONT to us alone is meant for the command too.
    this.#resumed = true;
    if (this.#foreground !== undefined && inForeground()) setForeground(this.#foreground);
    for (let waited = 0; waited < CONTINUE_MS; waited++) {
      const next = childChange(this.pid);
      if (next !== undefined) return this.#follow(next);
      Bun.sleepSync(1);
    }
    send(this.#leads() ? -this.pid : this.pid, SIG.CONT);
    return undefined;
  }

  #isBackground(signal: number): boolean {
    const front = foregroundGroup();
    const isOurs = front !== undefined && (front === ownGroup() || front === this.#foreground);
    return signal === SIG.STOP && !isOurs;
  }

  /** Call it when no signal has come for a while: a process of the command may need the terminal. */
  idle(): void {
    if (this.#foreground === undefined && this.#leads() && inForeground() && hasStopped(this.pid))
      this.#giveTerminal();
  }

  /** Does the command lead a process group of its own? */
  #leads(): boolean {
    return groupOf(this.pid) === this.pid && this.pid !== ownGroup();
  }

  /** Gives the terminal to the command's own group, where ours has it: without us it would be in the foreground. */
  #giveTerminal(): boolean {
    if (!this.#leads() || !inForeground()) return false;
    const group = this.pid;
    setForeground(group);
    this.#foreground = group;
    send(-group, SIG.CONT);
    return true;
  }
}

/** Is this how the kernel stops what reads from a terminal, or sets it, in the background? */
const isForTerminal = (signal: number): boolean => signal === SIG.TTIN || signal === SIG.TTOU;

/**
 * Waits for the command's end.
 * @param seen as in `Supervision`
 * @param meanwhile called before each wait, so at least each second. It may return the milliseconds until it is to be called
 *   again
 */
export function supervise(pid: number, seen?: Set<number>, meanwhile?: () => number | undefined): Ending {
  const supervision = new Supervision(pid, seen);
  passFaultsOn();
  for (;;) {
    const ending = supervision.poll();
    if (ending !== undefined) return ending;
    const received = nextSignal(meanwhile?.());
    if (received === undefined) supervision.idle();
    else supervision.take(received);
  }
}

/** Ends this process as the command ended. */
export function exitLike(ending: Ending): never {
  return "killed" in ending ? dieBySignal(ending.killed) : exit(ending.exited);
}
