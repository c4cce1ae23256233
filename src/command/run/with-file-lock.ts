/** `exclusive run` with a lock in a file: acquire, run the command, release. */

import { acquireSync, releaseAttached, releaseSync, tryAcquireSync } from "../../acquire.ts";
import { limitInWords } from "../../duration.ts";
import { printable } from "../../errors.ts";
import type { EventFields } from "../../events.ts";
import { thisProcess } from "../../holder.ts";
import { adoptDescendants } from "../../os/child-process.ts";
import { releaseStderrWith } from "../../os/descriptors.ts";
import { keepWhileHeld } from "../../os/keeper.ts";
import { leaveEngineSignal } from "../../os/signal-mask.ts";
import {
  exit,
  isSessionLeader,
  keepBlockedSignals,
  releaseKeptSignals,
  SIG,
  send,
} from "../../os/signals.ts";
import { execInto, start } from "../../os/spawn.ts";
import type { FileLease } from "../../store/file/file-lease.ts";
import { FileStore } from "../../store/file/file-store.ts";
import type { FileStoreOptions } from "../../store/file/lock-file.ts";
import { describePlaceChange } from "../../store/store.ts";
import { EXIT } from "../cli/exit-status.ts";
import { type EventLog, endingFields } from "../output/event-log.ts";
import { cannotStart, recordFailedStart } from "./cannot-start.ts";
import { leaveToKeeper } from "./keeper.ts";
import { type Supervised, superviseFor } from "./max-runtime.ts";
import { leaveToHeirs, tellOrphaned, wasAskedToEnd } from "./orphans.ts";
import type { RunPlan } from "./run-plan.ts";
import { exitLike } from "./supervise.ts";
import { mayWait, waitForLock } from "./wait-for-lock.ts";

/**
 * Runs the command under the lock, and ends as the command ended.
 * @throws {CannotAcquireLock} when the lock is held, and the plan does not wait for it
 * @throws {CommandError} when the command cannot be started
 */
export async function runWithFileLock(plan: RunPlan, where: FileStoreOptions, log: EventLog): Promise<never> {
  const { name } = plan.request;
  const store = new FileStore(where);
  let lease = mayWait(plan) ? tryAtOnce(store, plan) : acquireSync(store, plan.request);
  let endThreads = () => {};
  if (lease === undefined) {
    endThreads = await prepareStart();
    lease = await waitForLock(store, plan, log);
    releaseKeptSignals();
  }
  const waited = log.elapsed;
  log.tell("acquired", { waitSeconds: waited, lockfile: lease.location }, () => {
    return `acquired '${printable(name)}' after ${limitInWords(waited * 1000)} (${printable(lease.location)})`;
  });
  const times = () => ({ waitSeconds: waited, holdSeconds: Number((log.elapsed - waited).toFixed(3)) });
  const seen = new Set<number>();
  let ended: Supervised;
  let left: number[] | undefined;
  let kept: string | undefined;
  try {
    const started = (pid?: number) => {
      log.commandPid = pid;
      endThreads();
    };
    const details = times;
    ended = runCommand(plan, lease, { started, seen, log, details });
    const keepFor = (plan.holdFor ?? 0) - times().holdSeconds * 1000;
    if (keepFor > 0) kept = leaveToKeeper(lease, name, keepFor);
    // Without us the command would lead the session, and the kernel hang up the rest of its group when it ends.
    if (seen.has(SIG.HUP) && isSessionLeader()) send(0, SIG.HUP);
    if (kept === undefined && !ended.overran && wasAskedToEnd(ended.ending, seen)) left = leaveToHeirs(lease);
  } catch (error) {
    recordFailedStart(error, times(), log);
    throw error;
  } finally {
    releaseSync(lease);
  }
  const { ending, overran } = ended;
  const details = { ...times(), ...endingFields(ending), reason: kept };
  if (left !== undefined) tellOrphaned(log, left, details);
  else
    log.tell("released", details, () => {
      const what = kept === undefined ? "released" : "ended under";
      return `${what} '${printable(name)}' after ${limitInWords(details.holdSeconds * 1000)}${kept === undefined ? "" : `: ${kept}`}`;
    });
  if (overran) exit(EXIT.OVERRAN);
  exitLike(ending);
}

/** With `latest` a run takes its place first, also where the lock is free: an older one may wait. */
const tryAtOnce = (store: FileStore, { request, policy }: RunPlan): FileLease | undefined =>
  policy === "latest" ? undefined : tryAcquireSync(store, request);

/** What follows a command. */
interface Observers {
  started: (pid?: number) => void;
  /** Collects the signals that reach us. */
  seen: Set<number>;
  log: EventLog;
  /** The fields of its events. */
  details: () => EventFields["overran"];
}

/**
 * Starts the command and waits for its end; with `exec` becomes the command. The command inherits the lock's descriptor.
 * @throws {CommandError} when it cannot be started
 */
function runCommand(plan: RunPlan, lease: FileLease, { started, seen, log, details }: Observers): Supervised {
  const { argv, request, exec, close, limit, verbosity } = plan;
  const env = { EXCLUSIVE_NAME: request.name, EXCLUSIVE_LOCKFILE: lease.location };
  const command = { argv, env, lockFd: lease.fd, lockAt: close ? ("closed" as const) : undefined };
  if (exec) {
    releaseAttached(lease); // its file would stay
    const { failure, lockFd } = execInto(command);
    lease.moveTo(lockFd);
    throw cannotStart(argv[0]!, failure);
  }
  adoptDescendants();
  const { pid, failure, lockFd } = start(command);
  started(pid);
  lease.moveTo(lockFd);
  if (failure !== undefined) throw cannotStart(argv[0]!, failure);
  lease.recordCommand(pid);
  const reports = verbosity.verbose || verbosity.json;
  const keepers: number[] = [];
  const meanwhile = () => {
    lookAfterFile(lease, log, keepers);
    if (!reports) releaseStderrWith(pid);
  };
  const heirs = () => lease.heirs();
  return superviseFor(pid, limit, log, { seen, details, heirs, except: keepers, meanwhile });
}

/** @param keepers the process that keeps a new file for the command, which has the first one only */
function lookAfterFile(lease: FileLease, log: EventLog, keepers: number[]): void {
  const change = lease.lookAfterFile();
  if (change === undefined) return;
  const { event, ...details } = change;
  if (event === "retaken") {
    const [first, current] = lease.descriptors;
    for (const pid of keepers.splice(0)) send(pid, SIG.KILL);
    const keeper = current && keepWhileHeld(current, first!);
    if (keeper) keepers.push(keeper);
  }
  log.tell(event, details, () => describePlaceChange(change));
}

/**
 * Uses the time of a wait to prepare the start of the command.
 * @returns ends the threads that waited: to be called when the command has been started
 */
async function prepareStart(): Promise<() => void> {
  const { keepThreads } = await import("../../os/flock-thread.ts");
  thisProcess();
  leaveEngineSignal();
  keepBlockedSignals();
  return keepThreads();
}
