/**
 * Stops the holders of a lock: for `exclusive stop` and `run --if-held replace`.
 *
 * A signal to a wrong process is worse than none. So a process is signalled only where the record and the OS agree: the
 * recorded pid lives, it started when the record says, and (on Linux) the kernel reports that it holds the lock. It is
 * pinned before the last of these checks, so that its pid cannot pass to another process in between.
 */

import { acquire, holderOf, locationOf } from "../../acquire.ts";
import { CannotAcquireLock, LockTimeout, printable } from "../../errors.ts";
import type { Holder } from "../../holder.ts";
import { holdsLock, processesHolding } from "../../os/lock-table.ts";
import { ProcessHandle } from "../../os/process-handle.ts";
import { isStopped, parentOf } from "../../os/processes.ts";
import { SIG, takePendingSignals } from "../../os/signals.ts";
import { statusWithSlots } from "../../store/look-up.ts";
import type { Lease, LockStatus, Request, Store } from "../../store/store.ts";
import { StopRefused } from "../cli/exit-status.ts";

/** How holders are stopped. */
export interface StopOptions {
  /** The first signal. */
  signal: number;
  /** Milliseconds until SIGKILL. */
  grace: number;
  /** When to give up, in milliseconds since the epoch. */
  deadline?: number;
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
const RECORD_MS = 200;
const POLL_MS = 10;

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
  const deadline = timeout === undefined ? Number.POSITIVE_INFINITY : Date.now() + timeout;
  for (;;) {
    try {
      return await acquire(store, request);
    } catch (error) {
      if (!(error instanceof CannotAcquireLock)) throw error;
      if (Date.now() >= deadline) throw new LockTimeout(error, timeout! / 1000);
    }
    try {
      // Signals are blocked for the sake of the command, and no other thread takes them here.
      const meanwhile = takePendingSignals;
      await stopHolders(store, name, { signal: SIG.TERM, grace: GRACE_MS, deadline, meanwhile });
    } catch (error) {
      if (!(error instanceof StopRefused)) throw error;
      const holder = (await holderOf(store, request)) ?? undefined;
      throw new CannotAcquireLock(
        { lock: name, lockfile: locationOf(store, request), holder },
        error.message,
      );
    }
  }
}

/** A process to be stopped: the holder, or the command that a killed holder left with the lock. */
interface Target {
  lock: LockStatus;
  holder: Holder;
  pid: number;
}

type PinnedTarget = Target & { process: ProcessHandle };

/**
 * Stops the processes that hold the lock now, and waits until they no longer hold it.
 * @returns the pids that were signalled, and those of them that hold the lock even after SIGKILL
 * @throws {StopRefused} when the holder is not proven, or may not be signalled: then no process was signalled
 */
export async function stopHolders(
  store: Store,
  name: string,
  { signal, grace, deadline = Number.POSITIVE_INFINITY, meanwhile }: StopOptions,
): Promise<{ stopped: number[]; left: number[] }> {
  const targets = await pinTargets(store, name);
  try {
    for (const { process } of targets) {
      if (!maySignal(process))
        throw new StopRefused(`we may not signal pid ${process.pid}, which holds '${printable(name)}'`);
    }
    /** The targets that still hold the lock. */
    const holding = async () => {
      const now = new Map<string, LockStatus>();
      for (const { lock } of targets) now.set(lock.name, await store.status(lock.name));
      return targets.filter(({ lock, holder }) => stillHolds(now.get(lock.name)!, holder));
    };
    /** @param signalAgain called at each poll @returns whether the lock was released within this time */
    const released = async (milliseconds: number, signalAgain?: (left: PinnedTarget[]) => void) => {
      for (const end = Math.min(Date.now() + milliseconds, deadline); ; await Bun.sleep(POLL_MS)) {
        meanwhile?.();
        const left = await holding();
        if (left.length === 0 || Date.now() >= end) return left.length === 0;
        signalAgain?.(left);
      }
    };
    const result = async () => ({
      stopped: targets.map(({ pid }) => pid),
      left: (await holding()).map(({ pid }) => pid),
    });

    if (targets.length === 0) return result();
    if (signal !== SIG.KILL) {
      for (const { process } of targets) {
        process.send(signal);
        if (isStopped(process.pid)) process.send(SIG.CONT); // else the signal would be pending until it is continued
      }
      if ((await released(grace)) || Date.now() >= deadline) return result();
    }
    // The command first: its wrapper then removes the file and ends by itself. A wrapper that was killed first would
    // leave its command with the lock.
    const commands = (await holding()).filter(({ holder }) => killCommand(holder));
    if (commands.length > 0 && (await released(WRAPPER_MS))) return result();
    await released(KILL_MS, (left) => {
      for (const { process } of targets) process.send(SIG.KILL);
      for (const { lock } of left) killAllHolding(lock.lockfile);
    });
    return result();
  } finally {
    for (const { process } of targets) process[Symbol.dispose]();
  }
}

/** A process that has ended counts as one that may be signalled: there is nothing left to refuse. */
const maySignal = (process: ProcessHandle): boolean => process.send(0) !== "EPERM";

/** The processes to be stopped, pinned before the last check. */
async function pinTargets(store: Store, name: string): Promise<PinnedTarget[]> {
  for (const deadline = Date.now() + RECORD_MS; ; await Bun.sleep(POLL_MS)) {
    let refusal: StopRefused | undefined;
    const pinned: PinnedTarget[] = [];
    try {
      for (const target of targetsOf(await statusWithSlots(store, name)))
        pinned.push({ ...target, process: new ProcessHandle(target.pid) });
      const now = targetsOf(await statusWithSlots(store, name)).map(({ pid }) => pid);
      if (now.join() === pinned.map(({ pid }) => pid).join()) return pinned;
    } catch (error) {
      if (!(error instanceof StopRefused)) throw error;
      refusal = error;
    }
    for (const { process } of pinned) process[Symbol.dispose]();
    if (refusal && Date.now() >= deadline) throw refusal;
  }
}

/** @throws {StopRefused} when the holder is not proven */
function targetsOf(lock: LockStatus): Target[] {
  const shown = printable(lock.name);
  if (lock.state === "unknown") throw new StopRefused(`we may not see who holds '${shown}'`);
  if (lock.state === "free") return [];
  if (lock.slots) return lock.slots.flatMap(targetsOf);
  const others = (lock.others ?? []).filter(({ alive }) => alive);
  return [lock.holder ?? {}, ...others].map((holder) => {
    const { pid, alive, host, commandPid } = holder;
    // A holder without a host has no record: only the kernel names it. It is trusted as one of many readers of a lock
    // whose first reader has a record.
    if (pid !== undefined && alive && (host !== undefined || lock.holder?.host !== undefined))
      return { lock, holder, pid };
    if (alive === false && commandPid !== undefined && holdsLock(commandPid, lock.lockfile))
      return { lock, holder, pid: commandPid };
    throw new StopRefused(`'${shown}' is held, and its holder is not stopped: ${whyNot(holder)}`);
  });
}

function whyNot({ pid, alive, host }: Holder): string {
  if (pid === undefined) return "nothing says which process that is";
  if (host === undefined)
    return `it has no record of the process that the kernel names (kill ${pid}, if that is the one)`;
  if (alive === undefined)
    return `pid ${pid} of ${printable(host)} means nothing here, on another host or in another pid namespace`;
  return `the process that took it is gone, and pid ${pid} may be another's by now`;
}

/** Whether the holder, or what it left behind, still has the lock. */
function stillHolds({ state, holder, others = [] }: LockStatus, { pid }: Holder): boolean {
  return state === "held" && [holder, ...others].some((now) => now?.pid === pid);
}

/** Kills the command of a wrapper, if it is the wrapper's child: the record may name any process. */
function killCommand({ pid, commandPid }: Holder): boolean {
  if (commandPid === undefined) return false;
  using command = new ProcessHandle(commandPid);
  return parentOf(commandPid) === pid && command.send(SIG.KILL) === undefined;
}

/** Kills every process that has the lock's open file: what the holder left behind. */
function killAllHolding(lockfile: string): void {
  for (const pid of processesHolding(lockfile)) {
    using holding = new ProcessHandle(pid);
    if (holdsLock(pid, lockfile)) holding.send(SIG.KILL);
  }
}
