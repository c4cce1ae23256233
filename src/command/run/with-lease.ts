/** `exclusive run` with a store: the lock can be lost while the command runs, and then the command is stopped. */
import { milliseconds } from "../../duration.ts";
import { CannotAcquireLock, LockTimeout, printable } from "../../errors.ts";
import { Lock, type LockOptions } from "../../lock.ts";
import type { Ending } from "../../os/child-process.ts";
import { clock } from "../../os/clock.ts";
import { inheritedDescriptors } from "../../os/descriptors.ts";
import type { Code } from "../../os/libc.ts";
import { isIgnored } from "../../os/signal-sets.ts";
import { exit, SIG } from "../../os/signals.ts";
import { start } from "../../os/spawn.ts";
import type { TimedLease } from "../../store/lease.ts";
import { openStore } from "../../store/open-store.ts";
import type { Store } from "../../store/store.ts";
import { type CommandError, EXIT } from "../cli/exit-status.ts";
import { complain, type Log } from "../output/print.ts";
import { ChildThread } from "./child-watcher.ts";
import { Guardian } from "./guardian-client.ts";
import { CommandTree } from "./process-tree.ts";
import { exitLike } from "./supervise.ts";

/** What to run, and under which lock. */
export interface LeasedRun {
  url: string;
  ttl: string | undefined;
  lock: LockOptions & { name: string };
  argv: string[];
  policy: "fail" | "skip" | "coalesce" | "replace";
  wait: boolean;
  timeout: string | undefined;
  log: Log;
  cannotStart: (command: string, failure: Code) => CommandError;
}

/** Between looks at processes that must end. */
const LOOK_MS = 20;

/**
 * Takes the lock, runs the command, and ends as it ended, or with 70 when the lock was lost.
 * @throws {CannotAcquireLock} when the lock is not to be had, as far as the options go
 * @throws {StoreError} when the store cannot be reached
 */
export async function runLeased(run: LeasedRun): Promise<never> {
  const inherited = inheritedDescriptors(); // before there are any of ours
  if (!isIgnored(SIG.PIPE)) process.on("SIGPIPE", () => {}); // a guardian that is gone must not end us
  const { log } = run;
  const store = await openStore(run.url, {
    ttl: run.ttl,
    witness: false,
    notice: (reason) => log.tell("waiting", { wait: log.elapsed, reason }, () => reason),
  });
  const lock = new Lock({ ...run.lock, store });
  await acquire(lock, run);
  const lease = lock.lease as TimedLease;
  const guardian = await guard(lock, lease, run, log.elapsed);
  log.tell("acquired", { wait: log.elapsed, lockfile: lock.lockfile, token: String(lease.token) }, () => {
    return `acquired '${printable(lock.name)}' after ${log.elapsed} s (${printable(lock.lockfile)}, token ${lease.token})`;
  });
  return underLease(run, store, lock, lease, guardian, inherited);
}

async function acquire(lock: Lock, { policy, wait, timeout, log }: LeasedRun): Promise<void> {
  const coalesce = policy === "coalesce";
  const waits = wait || coalesce || timeout !== undefined || policy === "replace";
  if (!waits) {
    await lock.acquire();
    return;
  }
  const { showWaiting } = await import("../output/wait-line.ts");
  using _line = showWaiting(lock, timeout, log);
  if (policy === "replace") {
    const { replaceHolder } = await import("../stop.ts");
    await replaceHolder(lock, timeout === undefined ? undefined : milliseconds(timeout));
    return;
  }
  await lock.acquire({ wait: wait || coalesce, timeout, coalesce });
}

/** The environment by which the command's processes are known. */
const markOf = (lock: Lock, lease: TimedLease) => ({
  EXCLUSIVE_NAME: lock.name,
  EXCLUSIVE_LOCKFILE: lock.lockfile,
  EXCLUSIVE_TOKEN: String(lease.token),
});

/** Starts the guardian, and waits until it has the witness: until the last holder's command is gone. */
async function guard(lock: Lock, lease: TimedLease, run: LeasedRun, waited: number): Promise<Guardian> {
  const { shared, label } = run.lock;
  const guardian = new Guardian({
    url: run.url,
    ttl: lease.ttl,
    name: lease.name,
    mode: shared ? "shared" : "exclusive",
    label,
    mark: markOf(lock, lease),
    wrapper: process.pid,
  });
  guardian.tell({ deadline: lease.deadline });
  lease.onextended = (deadline) => guardian.tell({ deadline });
  const given = run.timeout === undefined ? undefined : milliseconds(run.timeout);
  // Whoever does not wait for the lock waits for its last holder's command to end no longer than a lease.
  const unlimited = run.wait || run.policy === "coalesce" || run.policy === "replace";
  const limit = given ? Math.max(0, given - waited * 1000) : unlimited ? undefined : lease.ttl;
  const late = limit === undefined ? undefined : AbortSignal.timeout(limit);
  try {
    const signals = [late, lease.lost].filter((signal) => signal !== undefined);
    await guardian.ready(AbortSignal.any(signals));
    return guardian;
  } catch (error) {
    await guardian.done(lease.ttl);
    await lock.release();
    if (late === undefined || error !== late.reason) throw error;
    const refusal = { name: lock.name, lockfile: lock.lockfile };
    throw given ? new LockTimeout(refusal, given / 1000) : new CannotAcquireLock(refusal);
  }
}

/** The command runs as our child until it ends, or until the lock is lost. */
async function underLease(
  run: LeasedRun,
  store: Store,
  lock: Lock,
  lease: TimedLease,
  guardian: Guardian,
  inherited: readonly number[],
): Promise<never> {
  const { log, argv } = run;
  const mark = markOf(lock, lease);
  const acquired = log.elapsed;
  const thread = await ChildThread.start();
  guardian.tell({ starting: true });
  const { pid, failure } = start({ argv, env: mark, lockFd: -1, inherited });
  if (failure !== undefined) {
    await giveBack(guardian, lock, lease, store);
    const { message, status } = run.cannotStart(argv[0]!, failure);
    complain(message);
    return exit(status); // at once: no thread of ours need end in order
  }
  guardian.tell({ command: pid });
  lease.recordCommand(pid);
  const tree = new CommandTree(pid, mark);
  const { ending, reason } = await untilOver(pid, tree, lease, guardian, thread);
  await giveBack(guardian, lock, lease, store);
  const details = { hold: Math.round((log.elapsed - acquired) * 1000) / 1000, ...ending };
  if (reason !== undefined) {
    log.tell("lost", { ...details, reason }, () => `${reason}: the command was stopped`);
    return exit(EXIT.SOFTWARE);
  }
  log.tell("released", details, () => {
    return `released '${printable(lock.name)}' after ${details.hold.toFixed(3)} s`;
  });
  return exitLike(ending);
}

/** Waits for the command's end. @returns with it, why the lock was lost if it was */
async function untilOver(
  pid: number,
  tree: CommandTree,
  lease: TimedLease,
  guardian: Guardian,
  thread: ChildThread,
): Promise<{ ending: Ending; reason: string | undefined }> {
  let stopping: Promise<void> | undefined;
  const lost = () => {
    guardian.tell({ stopping: true });
    stopping ??= stop(tree, Math.min(lease.deadline, clock() + lease.ttl / 3) - lease.ttl / 10);
  };
  const watch = setInterval(() => guardian.look(), 250);
  for (const signal of [lease.lost, guardian.lost]) {
    if (signal.aborted) lost();
    else signal.addEventListener("abort", lost);
  }
  const ending = await thread.supervise(pid);
  clearInterval(watch);
  // A wrapper that was stopped, and goes on, may hear of the command's end before it hears of the lease's.
  guardian.look();
  const isLost = lease.isLost || guardian.lost.aborted;
  const error = lease.lost.reason ?? guardian.lost.reason;
  await stopping;
  return { ending, reason: isLost ? (error as Error).message : undefined };
}

/** SIGTERM to all of the command, then SIGKILL: at once, when the time has come already. */
async function stop(tree: CommandTree, killAt: number): Promise<void> {
  if (clock() < killAt) tree.signal(SIG.TERM);
  for (;;) {
    const kill = clock() >= killAt;
    if ((kill ? tree.signal(SIG.KILL) : tree.living().length) === 0) return;
    await Bun.sleep(LOOK_MS);
  }
}

/** The witness first: whoever gets the main lock then finds it free. */
async function giveBack(guardian: Guardian, lock: Lock, lease: TimedLease, store: Store): Promise<void> {
  await guardian.done(lease.ttl);
  await lock.release();
  await store.close();
}
