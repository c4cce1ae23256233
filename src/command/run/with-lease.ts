/**
 * `exclusive run` with a lock in a remote store: acquire, run the command, release. The lock can be lost while the command
 * runs; then the command is stopped, before another host can own the lock.
 *
 *     wrapper (this file) ──── starts, supervises ────▶ command and its descendants (process-tree.ts)
 *       │ main lock: a lease, renewed here                ▲
 *       │ pipes (guardian-protocol.ts)                    │ stopped by the wrapper, else by the guardian (end-tree.ts)
 *       ▼                                                 │
 *     guardian (guardian.ts, guardian-client.ts) ─────────┘
 *         second hold: another lease (store/second-hold.ts)
 *
 * Two holds in two processes, because one fault can take away one hold: a session that an administrator ends, a process
 * that is killed or stopped. The other hold then keeps all other hosts out until the command has ended.
 *
 * 1. The wrapper acquires the main lock and starts the guardian, which acquires the second hold. Both are needed to start.
 * 2. Each renews its lease and tells the other its new deadline. A lease is lost a third before its end.
 * 3. If either hold is lost, the wrapper stops the command. If the wrapper is killed or stopped, the guardian does.
 * 4. When no process of the command is left, the second hold is released, then the main lock: the next holder of the
 *    main lock finds the second hold free.
 *
 * The guardian has its own session and no terminal, survives all signals that it can, and keeps no descriptor of the
 * command.
 */

import { acquire } from "../../acquire.ts";
import { limitInWords } from "../../duration.ts";
import { LockLost, printable } from "../../errors.ts";
import type { EventFields } from "../../events.ts";
import { adoptDescendants, type Ending, reapOthers } from "../../os/child-process.ts";
import { clock } from "../../os/clock.ts";
import { close } from "../../os/files.ts";
import { makeMarker, processesWith } from "../../os/marker.ts";
import { leaveEngineSignal } from "../../os/signal-mask.ts";
import { isIgnored } from "../../os/signal-sets.ts";
import { exit, keepBlockedSignals, SIG } from "../../os/signals.ts";
import { start } from "../../os/spawn.ts";
import type { TimedLease } from "../../store/lease.ts";
import { openEngine } from "../../store/open-store.ts";
import type { Store } from "../../store/store.ts";
import { CommandError, EXIT } from "../cli/exit-status.ts";
import { type EventLog, endingFields } from "../output/event-log.ts";
import { printError } from "../output/print.ts";
import { cannotStart, recordFailedStart } from "./cannot-start.ts";
import { ChildThread } from "./child-watcher.ts";
import { cannotStop, endTree, type TreeEnd } from "./end-tree.ts";
import { type Holds, secondHold } from "./holds.ts";
import { type RunLimit, tellOverran, whenOver } from "./max-runtime.ts";
import { tellOrphaned, wasAskedToEnd } from "./orphans.ts";
import { ProcessTree } from "./process-tree.ts";
import type { RemoteStore, RunPlan } from "./run-plan.ts";
import { exitLike } from "./supervise.ts";
import { mayWait, waitForLock } from "./wait-for-lock.ts";

/** How often the guardian's deadline is checked, in milliseconds. */
const CHECK_MS = 250;
/** Processes that got the same signal as the command need a moment to end. */
const DYING_MS = 200;
const POLL_MS = 10;
/** How often the processes that a command left are looked at. */
const HEIRS_MS = 100;

/**
 * Runs the command under the lock, and ends as the command ended, or with 70 when the lock was lost.
 * @throws {CannotAcquireLock} when the lock is held, as far as the plan waits for it
 * @throws {StoreError} when the store is unreachable or refuses the request
 */
export async function runWithLease(plan: RunPlan, { url, ttl }: RemoteStore, log: EventLog): Promise<never> {
  leaveEngineSignal();
  keepBlockedSignals();
  if (!isIgnored(SIG.PIPE)) process.on("SIGPIPE", () => {}); // writing to a guardian that has ended must not end us
  const { name } = plan.request;
  const store = await openEngine(url, {
    ttl,
    notice: (reason) => log.tell("waiting", { waitSeconds: log.elapsed, reason }, () => reason),
  });
  const holds = await bothHolds(store, plan, url, log);
  const { main } = holds;
  const waited = log.elapsed;
  log.tell("acquired", { waitSeconds: waited, lockfile: main.location, token: String(main.token) }, () => {
    return `acquired '${printable(name)}' after ${limitInWords(waited * 1000)} (${printable(main.location)}, token ${main.token})`;
  });
  const times = () => ({
    waitSeconds: waited,
    holdSeconds: Math.round((log.elapsed - waited) * 1000) / 1000,
  });
  const { ending, lost, refused, overran } = await runCommand(plan, holds, log, times);
  const held = times();
  // A command that could not be started leaves the lock to a host that can start it.
  const keepFor =
    lost !== undefined || ending instanceof CommandError ? 0 : (plan.holdFor ?? 0) - held.holdSeconds * 1000;
  const kept = await holds.keep(keepFor);
  if (kept === undefined) await holds.release();
  await store.close();
  if (ending instanceof CommandError) {
    recordFailedStart(ending, held, log);
    printError(ending.message);
    return exit(ending.status); // at once: no thread of this process has to end in order
  }
  const details = { ...held, ...endingFields(ending) };
  if (lost !== undefined) {
    log.tell("lost", { ...details, reason: lost, left: refused }, () => {
      const rest = refused ? `, but pid ${refused.join(", ")} ended by itself` : "";
      return `${lost}; command stopped${rest}`;
    });
    return exit(EXIT.SOFTWARE);
  }
  log.tell("released", { ...details, reason: kept }, () => {
    const what = `'${printable(name)}' after ${limitInWords(held.holdSeconds * 1000)}`;
    return kept === undefined ? `released ${what}` : `ended under ${what}: ${kept}`;
  });
  return overran ? exit(EXIT.OVERRAN) : exitLike(ending);
}

/** Acquires both holds. A run that waits starts again when the main lock is lost before the command has begun. */
async function bothHolds(
  store: Store<TimedLease>,
  plan: RunPlan,
  url: string,
  log: EventLog,
): Promise<Holds> {
  for (;;) {
    const main = mayWait(plan) ? await waitForLock(store, plan, log) : await acquire(store, plan.request);
    try {
      return await secondHold(store, main, plan, url, log);
    } catch (error) {
      if (!mayWait(plan) || !(error instanceof LockLost)) throw error;
      log.tell(
        "waiting",
        { waitSeconds: log.elapsed, reason: error.message },
        () => `${error.message}; trying again`,
      );
    }
  }
}

/** How the command ended, or why it did not start; and why the lock was lost, if it was. */
interface Outcome {
  ending: Ending | CommandError;
  lost?: string | undefined;
  /** Processes that could not be stopped then: their end was waited for. */
  refused?: number[] | undefined;
  /** It was stopped because it ran too long. */
  overran?: boolean;
}

/** @throws {CannotRun} {LockFileError} where no thread can be started, or the marker cannot be handed on */
async function begin(argv: string[], { guardian, mark }: Holds) {
  const watcher = await ChildThread.start();
  const marker = makeMarker();
  guardian.tell({ starting: true, marker: marker.id });
  adoptDescendants();
  return { watcher, marker, ...start({ argv, env: mark, lockFd: marker.fd }) };
}

/** Runs the command until it has ended, and every process of it where the lock was lost. */
async function runCommand(
  { argv, limit }: RunPlan,
  holds: Holds,
  log: EventLog,
  times: () => EventFields["overran"],
): Promise<Outcome> {
  const { main, guardian, mark } = holds;
  const { watcher, marker, pid, failure, lockFd } = await begin(argv, holds).catch(async (error) => {
    await holds.release(); // no command has been started
    throw error;
  });
  close(lockFd);
  if (failure !== undefined) return { ending: cannotStart(argv[0]!, failure) };
  guardian.tell({ command: pid });
  log.commandPid = pid;
  main.recordCommand(pid);
  const heirs = () => (marker.id === undefined ? [] : processesWith(marker.id));
  const tree = new ProcessTree({ command: pid, wrapper: process.pid, except: [guardian.pid], heirs, mark });
  const run = new LeasedRun(pid, tree, holds, log);
  const onoverrun = (limit: RunLimit) => tellOverran(log, limit, times());
  using _timer = limit && whenOver(limit.runtime, () => run.overrun(limit, onoverrun));
  return await run.untilOver(watcher);
}

/** The command of a run with a lease, and what it leaves. */
class LeasedRun {
  #stopped: Promise<TreeEnd> | undefined;
  readonly #ending = {
    killAt: Number.POSITIVE_INFINITY,
    onrefused: (pids: readonly number[]) => printError(cannotStop(this.log.name, pids)),
  };
  #overran = false;

  constructor(
    private readonly pid: number,
    private readonly tree: ProcessTree,
    private readonly holds: Holds,
    private readonly log: EventLog,
  ) {}

  async untilOver(watcher: ChildThread): Promise<Outcome> {
    const { main, guardian } = this.holds;
    const check = setInterval(() => this.#check(), CHECK_MS);
    for (const signal of [main.lost, guardian.lost]) {
      if (signal.aborted) this.#stop();
      else signal.addEventListener("abort", () => this.#stop());
    }
    const seen = new Set<number>();
    const ending = await watcher.supervise(this.pid, seen);
    // After SIGSTOP and SIGCONT, the command's end may be processed before the end of a lease.
    guardian.checkDeadline();
    watcher.forwardTo((signal) => void this.tree.signal(signal));
    if (this.#overran) await this.#stopped;
    else if (!this.#isLost && wasAskedToEnd(ending, seen)) await this.#keepForHeirs(ending);
    clearInterval(check);
    const lost = this.#isLost ? ((main.lost.reason ?? guardian.lost.reason) as Error).message : undefined;
    const refused = [...((await this.#stopped)?.refused ?? [])];
    return { ending, lost, refused: refused.length > 0 ? refused : undefined, overran: this.#overran };
  }

  get #isLost(): boolean {
    return this.holds.main.isLost || this.holds.guardian.lost.aborted;
  }

  #check(): void {
    this.holds.guardian.checkDeadline();
    reapOthers(this.pid);
  }

  #stop(): void {
    const { main, guardian } = this.holds;
    guardian.tell({ stopping: true });
    this.#endTree(Math.min(main.deadline, clock() + main.ttl / 3) - main.ttl / 10);
  }

  /** The command has run too long: it is stopped, and the lock stays until it has ended. */
  overrun(limit: RunLimit, tell: (limit: RunLimit) => void): void {
    if (this.#stopped !== undefined) return;
    this.#overran = true;
    tell(limit);
    this.#endTree(clock() + limit.killAfter);
  }

  /** A lock that is lost while the command is stopped leaves it less time. */
  #endTree(killAt: number): void {
    this.#ending.killAt = Math.min(this.#ending.killAt, killAt);
    this.#stopped ??= endTree(this.tree, this.#ending);
  }

  /**
   * Keeps both holds up to the end of the last process of a command that was ended by a signal. A lease ends with the process
   * that renews it, so this process stays.
   */
  async #keepForHeirs(ending: Ending): Promise<void> {
    let told = false;
    for (const from = clock(); !this.#isLost; await Bun.sleep(told ? HEIRS_MS : POLL_MS)) {
      reapOthers(0);
      if (this.tree.known().length > 0) {
        if (told || clock() - from < DYING_MS) continue;
      }
      const left = this.tree.living();
      if (left.length === 0) return;
      if (told || clock() - from < DYING_MS) continue;
      told = true;
      tellOrphaned(this.log, left, endingFields(ending));
    }
  }
}
