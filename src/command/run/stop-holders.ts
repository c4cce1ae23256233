/** Stops the holders of a lock: for `exclusive stop` and `run --if-held replace`. */

import { acquire, holderOf, locationOf } from "../../acquire.ts";
import { limitInWords } from "../../duration.ts";
import { CannotAcquireLock, LockTimeout, printable } from "../../errors.ts";
import { clock } from "../../os/clock.ts";
import type { ProcessHandle } from "../../os/process-handle.ts";
import { isStopped, livingProcesses, ourAncestors } from "../../os/processes.ts";
import { SIG, takePendingSignals } from "../../os/signals.ts";
import { FileStore } from "../../store/file/file-store.ts";
import { withRemoved } from "../../store/file/removed.ts";
import { statusWithSlots } from "../../store/look-up.ts";
import type { Lease, LockStatus, Request, Store } from "../../store/store.ts";
import { StopRefused } from "../cli/exit-status.ts";
import { type Target, targetsOf } from "./stop-targets.ts";
import { inTurn } from "./stop-turn.ts";

/** How holders are stopped. */
export interface StopOptions {
  /** The first signal. */
  signal: number;
  /** Milliseconds until SIGKILL. */
  grace: number;
  /** When to give up, on `clock()`. */
  deadline?: number;
  /** Begin with SIGKILL: another process has sent the first signal, and this grace has passed since. */
  late?: boolean;
  /** Not over before the lock can be taken, even if our own ancestors have to end for that. */
  untilFree?: boolean;
  /** Called at each poll. */
  meanwhile?: () => void;
}

/** The default of `grace`. */
export const GRACE_MS = 10_000;
/** A process that SIGKILL does not end is blocked in the kernel, by a disk or a server, perhaps without end. */
const KILL_MS = 10_000;
/** After its command was killed, a wrapper removes the lock file and ends by itself. */
const WRAPPER_MS = 1000;
/** Grace period for a new holder to write its record. */
const RECORD_MS = 500;
/** A wrapper forwards a signal to its command within this time. */
const FORWARD_MS = 20;
const POLL_MS = 10;
const SLOW_POLL_MS = 50;

/**
 * `run --if-held replace`: stops the holder, and the next one, until this process has the lock. So of many processes that
 * replace each other at once the last one stays.
 * @throws {LockTimeout} when the lock is still held after this many milliseconds
 * @throws {CannotAcquireLock} when the holder cannot be stopped
 */
export async function replaceHolder<L extends Lease>(
  store: Store<L>,
  request: Request,
  timeout: number | undefined,
): Promise<L> {
  const { name } = request;
  const deadline = timeout === undefined ? Number.POSITIVE_INFINITY : clock() + timeout;
  const late = (error: CannotAcquireLock) => new LockTimeout(error, limitInWords(timeout!));
  return inTurn(store, name, deadline - clock(), async (turn) => {
    for (;;) {
      try {
        return await acquire(store, request);
      } catch (error) {
        if (!(error instanceof CannotAcquireLock)) throw error;
        if (clock() >= deadline || turn === "late") throw late(error);
      }
      try {
        // Signals are blocked for the sake of the command, and no other thread takes them here.
        const meanwhile = takePendingSignals;
        const options = { signal: SIG.TERM, grace: GRACE_MS, deadline, meanwhile, untilFree: true };
        await stopHolders(store, name, options);
      } catch (error) {
        if (!(error instanceof StopRefused)) throw error;
        const holder = (await holderOf(store, request)) ?? undefined;
        throw new CannotAcquireLock(
          { lock: name, lockfile: locationOf(store, request), holder },
          error.message,
        );
      }
    }
  });
}

/** What became of the processes that held a lock. */
export interface Stopped {
  /** The holders that were signalled. */
  stopped: number[];
  /** Processes that hold the lock nevertheless. */
  left: number[];
  /** Processes that have the lock's open file and were not signalled: they are not of its command. */
  strangers: number[];
  /** Such a process is there, and the kernel does not name it to us. */
  unseen: boolean;
}

/**
 * Stops the processes that hold the lock now, and waits until no process of theirs lives and none has their open file.
 *
 * A process that stops the lock under which it runs is a part of that command. It signals the rest, and cannot wait for the
 * processes that wait for it: its ancestors, which end by the same signal when it has ended.
 * @throws {StopRefused} when the holder is not proven, or may not be signalled: then no process was signalled
 */
export async function stopHolders(store: Store, name: string, options: StopOptions): Promise<Stopped> {
  const targets = await pinTargets(store, name);
  try {
    for (const { process } of targets) {
      if (!maySignal(process))
        throw new StopRefused(`not permitted to signal pid ${process.pid} (holder of '${printable(name)}')`);
    }
    return await new Stopping(store, targets, options).run();
  } finally {
    for (const target of targets) target[Symbol.dispose]();
  }
}

/** A process that has ended counts as one that may be signalled: there is nothing left to refuse. */
const maySignal = (process: ProcessHandle): boolean => process.send(0) !== "EPERM";

/** The processes to be stopped, pinned before the last check. */
async function pinTargets(store: Store, name: string): Promise<Target[]> {
  for (const deadline = clock() + RECORD_MS; ; await Bun.sleep(POLL_MS)) {
    let refusal: StopRefused | undefined;
    let pinned: Target[] = [];
    let again: Target[] = [];
    try {
      pinned = targetsOf(await wholeStatus(store, name));
      again = targetsOf(await wholeStatus(store, name));
      if (again.map(({ pid }) => pid).join() === pinned.map(({ pid }) => pid).join()) return pinned;
      for (const target of pinned) target[Symbol.dispose]();
    } catch (error) {
      if (!(error instanceof StopRefused)) throw error;
      for (const target of pinned) target[Symbol.dispose]();
      refusal = error;
    } finally {
      for (const target of again) target[Symbol.dispose]();
    }
    if (refusal && clock() >= deadline) throw refusal;
  }
}

/** The status of a lock, its slots and the holders of removed files included. */
async function wholeStatus(store: Store, name: string): Promise<LockStatus> {
  const status = await statusWithSlots(store, name);
  return store instanceof FileStore ? withRemoved(status) : status;
}

/** Stops targets that are proven. */
class Stopping {
  /** Since when no process of the command of this wrapper has lived. */
  readonly #emptySince = new Map<number, number>();
  /** This process and its ancestors. */
  readonly #ancestors = ourAncestors(livingProcesses());
  /** Does this process run under the lock? */
  readonly #isInside: boolean;

  constructor(
    private readonly store: Store,
    private readonly targets: readonly Target[],
    private readonly options: StopOptions,
  ) {
    this.#isInside = targets.some(({ pid }) => this.#ancestors.has(pid));
    if (options.untilFree) for (const target of targets) target.closeOurs(this.#isInside);
  }

  async run(): Promise<Stopped> {
    const { signal, grace, deadline = Number.POSITIVE_INFINITY, late = false } = this.options;
    if (this.targets.length > 0 && signal !== SIG.KILL && !late) {
      await this.#ask(signal);
      if ((await this.#over(grace)) || clock() >= deadline) return this.#result();
    }
    await this.#over(KILL_MS, () => this.#kill());
    return this.#result();
  }

  /** Sends the first signal to every process. What these start afterwards, to clean up, does not get it. */
  async #ask(signal: number): Promise<void> {
    const trees = this.targets.map((target) => ({ target, pids: target.tree.living() }));
    for (const { target } of trees) {
      if (this.#isInside && target.isWrapper) continue; // our own signal does not come back to us through the wrapper
      target.process.send(signal);
      if (isStopped(target.pid)) target.process.send(SIG.CONT); // else it would be pending until it is continued
    }
    // A shell that sees its child end before it gets the signal itself goes on with its next command.
    if (trees.some(({ target }) => target.isWrapper) && !this.#isInside) await Bun.sleep(FORWARD_MS);
    for (const { target, pids } of trees)
      target.tree.send(this.#isInside ? pids : pids.filter((pid) => pid !== target.command), signal);
  }

  /** Whether the end of a process is waited for: not that of our ancestors, which may wait for ours. */
  #awaited(): (pid: number) => boolean {
    return (pid) => this.options.untilFree === true || !this.#ancestors.has(pid);
  }

  /** Whether all is over, within this time. @param again called at each poll before that */
  async #over(milliseconds: number, again?: () => void): Promise<boolean> {
    const { deadline = Number.POSITIVE_INFINITY, meanwhile } = this.options;
    const from = clock();
    for (const end = Math.min(from + milliseconds, deadline); ; ) {
      meanwhile?.();
      const over = await this.#isOver();
      if (over || clock() >= end) return over;
      again?.();
      await Bun.sleep(clock() < from + SLOW_POLL_MS * 4 ? POLL_MS : SLOW_POLL_MS);
    }
  }

  async #isOver(): Promise<boolean> {
    const awaited = this.#awaited();
    for (const { tree } of this.targets) if (tree.known().some(awaited)) return false;
    for (const { tree } of this.targets) if (tree.living().some(awaited)) return false;
    return (await this.#holding()).length === 0;
  }

  /** The targets that still hold their lock themselves. */
  async #holding(): Promise<Target[]> {
    const now = new Map<string, LockStatus>();
    for (const { lock } of this.targets)
      if (!now.has(lock.name)) now.set(lock.name, await this.store.status(lock.name));
    const awaited = this.#awaited();
    return this.targets.filter(
      ({ lock, pid, holdsRemoved }) => awaited(pid) && (holdsRemoved || isHolder(pid, now.get(lock.name)!)),
    );
  }

  /**
   * SIGKILL, the command first: its wrapper then removes the file and ends by itself. A wrapper that was killed first would
   * leave its command with the lock.
   */
  #kill(): void {
    const awaited = this.#awaited();
    for (const { tree, isWrapper, pid, process } of this.targets) {
      const alive = tree.living().filter(awaited);
      tree.send(alive, SIG.KILL);
      if (alive.length > 0) this.#emptySince.delete(pid);
      else if (!this.#emptySince.has(pid)) this.#emptySince.set(pid, clock());
      const waitsForWrapper = isWrapper && clock() < (this.#emptySince.get(pid) ?? clock()) + WRAPPER_MS;
      if (awaited(pid) && !waitsForWrapper) process.send(SIG.KILL);
    }
  }

  async #result(): Promise<Stopped> {
    const awaited = this.#awaited();
    const has = this.targets.flatMap((target) => target.holdings().filter(awaited));
    const alive = this.targets.flatMap(({ tree }) => tree.known().filter(awaited));
    const holding = (await this.#holding()).map(({ pid }) => pid);
    const known = new Set([...alive, ...holding]);
    const strangers = new Set(has.filter((pid) => !known.has(pid)));
    const isAlone = known.size + strangers.size === 0;
    const unseen = isAlone && !this.#isInside && this.targets.some(({ isHeldUnseen }) => isHeldUnseen);
    return {
      stopped: this.targets.map(({ pid }) => pid),
      left: [...known],
      strangers: [...strangers],
      unseen,
    };
  }
}

/** Is this process one of the holders, or the command of one that is gone? What it left may be named in its place by now. */
const isHolder = (pid: number, { state, holder = {}, others = [] }: LockStatus): boolean =>
  state === "held" &&
  [holder, ...others].some((now) => now.pid === pid || (now.alive === false && now.commandPid === pid));
