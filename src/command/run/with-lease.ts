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

import { acquire, release } from "../../acquire.ts";
import { CannotAcquireLock, LockLost, LockTimeout, printable } from "../../errors.ts";
import type { Ending } from "../../os/child-process.ts";
import { clock } from "../../os/clock.ts";
import { inheritedDescriptors } from "../../os/descriptors.ts";
import { isIgnored } from "../../os/signal-sets.ts";
import { exit, SIG } from "../../os/signals.ts";
import { start } from "../../os/spawn.ts";
import type { TimedLease } from "../../store/lease.ts";
import { openEngine } from "../../store/open-store.ts";
import type { Store } from "../../store/store.ts";
import { CommandError, EXIT } from "../cli/exit-status.ts";
import type { EventLog } from "../output/event-log.ts";
import { printError } from "../output/print.ts";
import { cannotStart } from "./cannot-start.ts";
import { ChildThread } from "./child-watcher.ts";
import { endTree } from "./end-tree.ts";
import { GuardianClient } from "./guardian-client.ts";
import { CommandTree, type Mark } from "./process-tree.ts";
import type { RemoteStore, RunPlan } from "./run-plan.ts";
import { exitLike } from "./supervise.ts";
import { mayWait, waitForLock } from "./wait-for-lock.ts";

/** How often the guardian's deadline is checked, in milliseconds. */
const CHECK_MS = 250;

/**
 * Runs the command under the lock, and ends as the command ended, or with 70 when the lock was lost.
 * @throws {CannotAcquireLock} when the lock is held, as far as the plan waits for it
 * @throws {StoreError} when the store is unreachable or refuses the request
 */
export async function runWithLease(plan: RunPlan, { url, ttl }: RemoteStore, log: EventLog): Promise<never> {
  const inherited = inheritedDescriptors(); // before this process opens any
  if (!isIgnored(SIG.PIPE)) process.on("SIGPIPE", () => {}); // writing to a guardian that has ended must not end us
  const { name } = plan.request;
  const store = await openEngine(url, {
    ttl,
    notice: (reason) => log.tell("waiting", { wait: log.elapsed, reason }, () => reason),
  });
  const holds = await bothHolds(store, plan, url, log);
  const { main } = holds;
  const waited = log.elapsed;
  log.tell("acquired", { wait: waited, lockfile: main.location, token: String(main.token) }, () => {
    return `acquired '${printable(name)}' after ${waited} s (${printable(main.location)}, token ${main.token})`;
  });
  const { ending, lost } = await runCommand(plan, holds, inherited);
  await holds.release();
  await store.close();
  if (ending instanceof CommandError) {
    printError(ending.message);
    return exit(ending.status); // at once: no thread of this process has to end in order
  }
  const details = { hold: Math.round((log.elapsed - waited) * 1000) / 1000, ...ending };
  if (lost !== undefined) {
    log.tell("lost", { ...details, reason: lost }, () => `${lost}: the command was stopped`);
    return exit(EXIT.SOFTWARE);
  }
  log.tell("released", details, () => `released '${printable(name)}' after ${details.hold.toFixed(3)} s`);
  return exitLike(ending);
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
      return await secondHold(main, plan, url, log);
    } catch (error) {
      if (!mayWait(plan) || !(error instanceof LockLost)) throw error;
      log.tell(
        "waiting",
        { wait: log.elapsed, reason: error.message },
        () => `${error.message}; trying again`,
      );
    }
  }
}

/** The main lock and the second hold. */
class Holds {
  constructor(
    readonly main: TimedLease,
    readonly guardian: GuardianClient,
    /** The environment variables that identify the processes of the command. */
    readonly mark: Mark,
  ) {}

  async release(): Promise<void> {
    await this.guardian.done(this.main.ttl);
    await release(this.main);
  }
}

/**
 * Starts the guardian, and waits until it has the second hold: until the last holder's command has ended.
 * @throws {CannotAcquireLock} when that takes longer than the plan waits; then the main lock is released
 */
async function secondHold(main: TimedLease, plan: RunPlan, url: string, log: EventLog): Promise<Holds> {
  const { name, mode, label } = plan.request;
  const { timeout, wait } = plan;
  const mark = {
    EXCLUSIVE_NAME: name,
    EXCLUSIVE_LOCKFILE: main.location,
    EXCLUSIVE_TOKEN: String(main.token),
  };
  // With slots, the lock that was acquired is that of one slot.
  const order = { url, ttl: main.ttl, name: main.name, mode, label, mark, wrapper: process.pid };
  const holds = new Holds(main, new GuardianClient(order), mark);
  holds.guardian.tell({ deadline: main.deadline });
  main.onextended = (deadline) => holds.guardian.tell({ deadline });
  // A run that does not wait for a held lock still waits, up to one lease, for the last holder's command to end.
  const limit = timeout ? Math.max(0, timeout - log.elapsed * 1000) : wait ? undefined : main.ttl;
  const late = limit === undefined ? undefined : AbortSignal.timeout(limit);
  try {
    await holds.guardian.ready(AbortSignal.any(late === undefined ? [main.lost] : [late, main.lost]));
    return holds;
  } catch (error) {
    await holds.release();
    if (late === undefined || error !== late.reason) throw error;
    const refusal = { name, lockfile: main.location };
    throw timeout ? new LockTimeout(refusal, timeout / 1000) : new CannotAcquireLock(refusal);
  }
}

/** How the command ended, or why it did not start; and why the lock was lost, if it was. */
interface Outcome {
  ending: Ending | CommandError;
  lost?: string | undefined;
}

/** Runs the command until it has ended, and every process of it where the lock was lost. */
async function runCommand({ argv }: RunPlan, holds: Holds, inherited: readonly number[]): Promise<Outcome> {
  const { main, guardian, mark } = holds;
  const watcher = await ChildThread.start();
  guardian.tell({ starting: true });
  const { pid, failure } = start({ argv, env: mark, lockFd: -1, inherited });
  if (failure !== undefined) return { ending: cannotStart(argv[0]!, failure) };
  guardian.tell({ command: pid });
  main.recordCommand(pid);
  return untilOver(pid, new CommandTree(pid, mark), holds, watcher);
}

async function untilOver(
  pid: number,
  tree: CommandTree,
  { main, guardian }: Holds,
  watcher: ChildThread,
): Promise<Outcome> {
  let stopped: Promise<unknown> | undefined;
  const stop = () => {
    guardian.tell({ stopping: true });
    stopped ??= endTree(tree, Math.min(main.deadline, clock() + main.ttl / 3) - main.ttl / 10);
  };
  const check = setInterval(() => guardian.checkDeadline(), CHECK_MS);
  for (const signal of [main.lost, guardian.lost]) {
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop);
  }
  const ending = await watcher.supervise(pid);
  clearInterval(check);
  // After SIGSTOP and SIGCONT, the command's end may be processed before the end of a lease.
  guardian.checkDeadline();
  const isLost = main.isLost || guardian.lost.aborted;
  const error = main.lost.reason ?? guardian.lost.reason;
  await stopped;
  return { ending, lost: isLost ? (error as Error).message : undefined };
}
