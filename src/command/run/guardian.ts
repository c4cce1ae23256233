/**
 * The guardian of a command whose lock lives in a store: a second process, because the wrapper may be killed or
 * stopped, and then nobody would stop the command when its lease ends.
 *
 * It holds the lock's witness (`store/second-hold.ts`): it takes it before the command starts and gives it back when no
 * process of the command is left, so nobody else begins before that, whatever happens to the main lock. It ends with
 * the wrapper, or when it has done the wrapper's work. It has no terminal, ignores every signal, and keeps no
 * descriptor of the command's.
 */
import { printable } from "../../errors.ts";
import { clock } from "../../os/clock.ts";
import { write } from "../../os/files.ts";
import { SIG } from "../../os/signals.ts";
import { type TimedLease, within } from "../../store/lease.ts";
import { openStore } from "../../store/open-store.ts";
import { witnessOf } from "../../store/second-hold.ts";
import type { Lease } from "../../store/store.ts";
import { EXIT } from "../cli/exit-status.ts";
import { complain } from "../output/print.ts";
import { type FromGuardian, linesOf, type Order, type ToGuardian } from "./guardian-client.ts";
import { CommandTree } from "./process-tree.ts";

/** A wrapper that was killed may just have started the command: so long it is looked for. */
const SEARCH_MS = 1000;
/** A store gets so long to give the witness to who is leaving, so that it can be given back. */
const GOODBYE_MS = 500;
/** Between looks at the clock, and at processes that must end. */
const LOOK_MS = 20;

/** That nobody listens any more is no error. */
function say(message: FromGuardian): void {
  write(1, `${JSON.stringify(message)}\n`);
}

/** Whatever ends others, as a manager's SIGTERM to all of a service, must not end us before the command. */
const SURVIVED = [
  "SIGHUP",
  "SIGINT",
  "SIGQUIT",
  "SIGTERM",
  "SIGPIPE",
  "SIGUSR1",
  "SIGUSR2",
  "SIGALRM",
] as const;

/** The entry. */
export async function guardian(): Promise<number> {
  // Blocked they are, but the event loop lets them through while it waits.
  for (const signal of SURVIVED) process.on(signal, () => {});
  const decoder = new TextDecoder();
  const buffered = { text: "" };
  let guard: Guard | undefined;
  for await (const chunk of Bun.stdin.stream()) {
    for (const said of linesOf(buffered, decoder.decode(chunk, { stream: true }))) {
      const message = said as ToGuardian;
      if ("order" in message) guard = new Guard(message.order);
      else guard?.take(message);
    }
  }
  await guard?.wrapperGone();
  return EXIT.OK;
}

class Guard {
  readonly #witness: Promise<TimedLease | undefined>;
  /** The witness after it was lost. */
  #again: Promise<Lease | undefined> | undefined;
  readonly #over = new AbortController();
  #deadline = Number.POSITIVE_INFINITY;
  #starting = false;
  #command: number | undefined;
  #tree: CommandTree | undefined;
  #wrapperStops = false;
  #done = false;
  #stopped: Promise<void> | undefined;

  constructor(private readonly order: Order) {
    this.#witness = this.#take();
    setInterval(() => this.#watch(), Math.min(Math.max(order.ttl / 50, 10), 250));
  }

  take(message: Exclude<ToGuardian, { order: Order }>): void {
    if ("deadline" in message) this.#deadline = message.deadline;
    else if ("starting" in message) this.#starting = true;
    else if ("stopping" in message) this.#wrapperStops = true;
    else if ("done" in message) this.#done = true;
    else {
      this.#command = message.command;
      this.#tree = new CommandTree(message.command, this.order.mark);
    }
  }

  /** Nothing more will be said: the wrapper is done, or it is gone. */
  async wrapperGone(): Promise<void> {
    if (!this.#done && this.#starting) {
      const { name, wrapper } = this.order;
      if ((await this.#stop()) > 0)
        complain(`the wrapper of '${printable(name)}' (pid ${wrapper}) is gone: its command was stopped`);
    }
    await this.#stopped;
    await this.#leave();
  }

  async #leave(): Promise<void> {
    this.#over.abort();
    const witness = await this.#witness;
    await witness?.release();
    // A store that does not answer now is not waited for: the session, or the lease, ends without us.
    const again = this.#again && within(AbortSignal.timeout(GOODBYE_MS), this.#again);
    await (await again?.catch(() => undefined))?.release();
  }

  async #take(): Promise<TimedLease | undefined> {
    const { url, ttl, name, mode, label } = this.order;
    try {
      const store = await openStore(url, { ttl, witness: false, notice: () => {} });
      const request = witnessOf({ name, mode, label });
      const lease = await store.waitAcquire(request, this.#over.signal);
      const witness = lease as TimedLease;
      witness.onextended = (deadline) => say({ deadline });
      witness.lost.addEventListener("abort", () => {
        say({ lost: (witness.lost.reason as Error).message });
        // What took the witness away may have taken the main lock too. Nobody gets in before the command is gone if
        // the witness is ours again before somebody else asks for it.
        this.#again = store.tryAcquire(request, this.#over.signal).catch(() => undefined);
      });
      say({ deadline: witness.deadline });
      return witness;
    } catch (error) {
      if (!this.#over.signal.aborted) say({ failed: (error as Error).message });
      return undefined;
    }
  }

  /**
   * A wrapper that does not extend its lease, and does not stop the command, is stopped itself: so we do it. It had its
   * chance when the lease was lost, a third before its end.
   */
  #watch(): void {
    if (this.#command === undefined || this.#done || this.#stopped) return;
    const left = this.#deadline - clock();
    const { ttl } = this.order;
    if (left > ttl / 12 && (left > ttl / 4 || this.#wrapperStops)) return;
    this.#stopped = this.#stopForWrapper();
  }

  /**
   * A wrapper that is stopped keeps its end of the pipe open: we go without its word. Its work is over, so it is woken
   * to end: PostgreSQL keeps a lock for as long as there is a process at the other end of the connection.
   */
  async #stopForWrapper(): Promise<void> {
    await this.#stop();
    await this.#leave();
    try {
      process.kill(this.order.wrapper, "SIGCONT");
    } catch {} // has ended
    process.exit(EXIT.OK);
  }

  /**
   * SIGTERM to all of the command, and SIGKILL shortly before the lease ends: at once if that is so already.
   * @returns how many there were
   */
  async #stop(): Promise<number> {
    const tree = this.#tree ?? new CommandTree(undefined, this.order.mark);
    const search = this.#command === undefined ? clock() + SEARCH_MS : 0;
    const killAt = Math.min(this.#deadline, clock() + this.order.ttl / 3) - this.order.ttl / 12;
    let most = 0;
    let told = false;
    for (;;) {
      const now = clock();
      const kill = now >= killAt;
      const living: number = kill
        ? tree.signal(SIG.KILL)
        : told
          ? tree.living().length
          : tree.signal(SIG.TERM);
      told ||= living > 0;
      most = Math.max(most, living);
      if (living === 0 && now >= search) return most;
      await Bun.sleep(LOOK_MS);
    }
  }
}
