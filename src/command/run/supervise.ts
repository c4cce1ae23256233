/** The wrapper's life while the command runs: signals are forwarded, stops and ends are shared. */
import { address, libc, readText } from "../../os/libc.ts";
import {
  dieOf,
  exit,
  inForeground,
  isSessionLeader,
  nextSignal,
  type ReceivedSignal,
  SIG,
  send,
  suffer,
} from "../../os/signals.ts";

const linux = process.platform === "linux";
const WNOHANG = 1;
const WUNTRACED = 2;
const WCONTINUED = linux ? 8 : 16;

const { waitpid } = libc({ waitpid: { args: ["i32", "ptr", "i32"], returns: "i32" } });

/** How a command ended. */
export type Ending = { exited: number } | { killed: number };

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

/** How long a command that was stopped with us gets to be continued with us, before we do it. */
const CONTINUE_MS = 20;

/** What the wrapper does while the command runs, signal by signal. Each one that we get reaches the command once. */
export class Supervision {
  #resumed = false;

  /** @param seen gets the numbers of the signals that were sent to us */
  constructor(
    private readonly pid: number,
    private readonly seen?: Set<number>,
  ) {}

  /**
   * The command's end, if it has come. Asked first, and whatever woke us: a command that ends at once may have done so
   * before its SIGCHLD counts.
   */
  poll(): Ending | undefined {
    for (let change = childChange(this.pid); change !== undefined; change = childChange(this.pid)) {
      const ending = this.#follow(change);
      if (ending !== undefined) return ending;
    }
    return undefined;
  }

  /** We were sent this. */
  take(received: ReceivedSignal): void {
    if (received.signal === SIG.CHLD) return;
    this.seen?.add(received.signal);
    if (received.signal === SIG.CONT && this.#resumed) this.#resumed = false;
    else if (!hasIt(this.pid, received)) send(this.pid, received.signal);
  }

  /**
   * The command's end, if the change is that. If it was stopped by job control, so are we: the shell watches us, and
   * will continue us both. Not so by a SIGSTOP out of the terminal's sight: who sent it to the command alone will
   * continue the command alone, and nobody us.
   */
  #follow(change: Change): Ending | undefined {
    if ("exited" in change || "killed" in change) return change;
    if (!("stopped" in change) || (change.stopped === SIG.STOP && !inForeground())) return undefined;
    suffer(change.stopped);
    // We go on again. A shell's `fg` has continued us both; a SIGCONT to us alone is for the command too.
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

/** Waits for the command's end. @param seen as of `Supervision` */
export function supervise(pid: number, seen?: Set<number>): Ending {
  const supervision = new Supervision(pid, seen);
  for (;;) {
    const ending = supervision.poll();
    if (ending !== undefined) return ending;
    const received = nextSignal();
    if (received !== undefined) supervision.take(received);
  }
}

/** How a child has changed. */
type Change = Ending | { stopped: number } | { continued: true };

const waitStatus = new Int32Array(1);

/** The next change of a child, if there is one. */
function childChange(pid: number): Change | undefined {
  const result = waitpid(pid, address(waitStatus), WNOHANG | WUNTRACED | WCONTINUED);
  if (result === 0) return undefined;
  if (result < 0) throw new Error(`the command (pid ${pid}) has ended, and its exit status is lost`);
  const status = waitStatus[0]!;
  if (status === (linux ? 0xffff : 0x137f)) return { continued: true };
  if ((status & 0xff) === 0x7f) return { stopped: (status >> 8) & 0xff };
  const signal = status & 0x7f;
  return signal === 0 ? { exited: (status >> 8) & 0xff } : { killed: signal };
}

/** Has the command got this signal already, from the one who sent it to us? */
function hasIt(pid: number, { signal, fromKernel, sender }: ReceivedSignal): boolean {
  // What we send ourselves is SIGPIPE, when nobody reads any more what we say.
  if (!fromKernel) return sender === process.pid || (sender !== 0 && descendsFrom(sender, pid));
  if (signal === SIG.HUP && isSessionLeader()) return false;
  return TERMINAL_SIGNALS.has(signal);
}

/** Is this process the command or one that it started? Then a `kill 0` in a script must not come back to it. */
function descendsFrom(process: number, ancestor: number): boolean {
  for (let pid = process; pid > 1; ) {
    if (pid === ancestor) return true;
    const stat = readText(`/proc/${pid}/stat`);
    if (stat === undefined) return false;
    pid = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
  }
  return false;
}

/** Ends this process as the command ended. */
export function endLike(ending: Ending): never {
  return "killed" in ending ? dieOf(ending.killed) : exit(ending.exited);
}
