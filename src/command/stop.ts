/**
 * `exclusive stop`: end the process that holds a lock.
 *
 * A signal to a wrong process is worse than none. So nothing is signalled but a process that the record and the OS
 * agree on: the record's pid lives, started when the record says, and (on Linux) has the lock, by the kernel's word.
 * It is pinned before that is looked at for the last time, so that its pid cannot become another's in between.
 */
import { constants } from "node:os";
import { defineCommand } from "citty";
import { milliseconds } from "../duration.ts";
import { CannotAcquireLock, LockTimeout, printable } from "../errors.ts";
import type { Holder } from "../holder.ts";
import type { Lock } from "../lock.ts";
import { E } from "../os/libc.ts";
import { PinnedProcess } from "../os/process-handle.ts";
import { Describer, isStopped, parentOf } from "../os/processes.ts";
import { SIG, takePendingSignals } from "../os/signals.ts";
import { holdsLock, processesHolding } from "../store/file/inspect.ts";
import type { LockStatus, Store } from "../store/store.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT, StopRefused, UsageError } from "./cli/exit-status.ts";
import { LOCATION, lookUp, NAME, oneName, storeOf } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";
import { nearest } from "./cli/suggest.ts";
import { heldBy } from "./output/describe-holder.ts";
import { jsonLine, Log, print } from "./output/print.ts";

const ARGS = defineArgs({
  ...NAME,
  signal: {
    type: "string",
    alias: "s",
    valueHint: "SIGNAL",
    description: "send this first, instead of TERM",
  },
  grace: {
    type: "string",
    alias: "g",
    valueHint: "DURATION",
    description: "send SIGKILL after DURATION (default 10s)",
  },
  quiet: { type: "boolean", alias: "q", description: "no messages except errors" },
  json: {
    type: "boolean",
    description: "print one JSON object: the stopped processes, and the lock's status",
  },
  ...LOCATION,
});

export default defineCommand({
  meta: {
    name: "stop",
    description: "end the process that holds a lock",
    examples: [
      ["stop worker", "SIGTERM; SIGKILL after 10 s"],
      ["stop -s INT -g 1m worker", "SIGINT; SIGKILL after a minute"],
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => stop(rawArgs),
});

/** How a holder is stopped. */
export interface StopOptions {
  /** The first signal. */
  signal: number;
  /** Milliseconds until SIGKILL. */
  grace: number;
  /** Give up at this time, in milliseconds since the epoch. */
  deadline?: number;
  /** Called while we wait. */
  meanwhile?: () => void;
}

const GRACE_MS = 10_000;
/** A process that does not end by SIGKILL sits in the kernel, waiting for a disk or a server; it may for ever. */
const KILL_MS = 10_000;
/** A wrapper ends by itself, and removes the file, when its command was killed. */
const WRAPPER_MS = 1000;
/** Who has just taken the lock writes its record in the next moment. */
const RECORD_MS = 200;
const LOOK_MS = 10;

export async function stop(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, ARGS);
  const name = oneName(rest);
  const store = storeOf(values);
  const signal = values.signal === undefined ? SIG.TERM : signalNumber(values.signal);
  const grace = values.grace === undefined ? GRACE_MS : milliseconds(values.grace);
  const log = new Log({ quiet: values.quiet }, name);

  const { stopped, left } = await stopHolders(store, name, { signal, grace });
  const now = await lookUp(store, name);
  if (values.json) print(jsonLine({ ...new Describer().describe(now), stopped, left }));
  else log.tell("stopped", {}, () => inWords(stopped, left, now));
  return left.length > 0 ? EXIT.TEMPORARY_FAILURE : EXIT.OK;
}

function inWords(stopped: number[], left: number[], now: LockStatus): string {
  const state = now.state === "held" ? heldBy(now.name, now.holder) : `'${printable(now.name)}' is free`;
  if (left.length > 0) return `pid ${left.join(", ")} holds it even after SIGKILL: ${state}`;
  return stopped.length > 0 ? `stopped pid ${stopped.join(", ")}: ${state}` : state;
}

/** @throws {UsageError} when there is no such signal */
function signalNumber(text: string): number {
  const names = Object.keys(constants.signals);
  const name = `SIG${text.toUpperCase().replace(/^SIG/, "")}`;
  const numbers: readonly number[] = Object.values(constants.signals);
  if (Object.hasOwn(constants.signals, name)) return constants.signals[name as NodeJS.Signals];
  if (/^\d+$/.test(text) && numbers.includes(Number(text))) return Number(text);
  const meant = nearest(name, names)?.slice(3);
  throw new UsageError(`no such signal: '${printable(text)}'${meant ? ` (did you mean ${meant}?)` : ""}`);
}

/**
 * `run --if-held replace`: stops whoever holds the lock, until we have it. So of many who replace each other at once
 * the last one stays.
 * @throws {LockTimeout} when it is not ours after so many milliseconds
 * @throws {CannotAcquireLock} when the holder cannot be stopped
 */
export async function replaceHolder(lock: Lock, timeout: number | undefined): Promise<void> {
  const deadline = timeout === undefined ? Number.POSITIVE_INFINITY : Date.now() + timeout;
  for (;;) {
    try {
      await lock.acquire();
      return;
    } catch (error) {
      if (!(error instanceof CannotAcquireLock)) throw error;
      if (Date.now() >= deadline) throw new LockTimeout(error, timeout! / 1000);
    }
    try {
      // Our signals are blocked for the command's sake, and no other thread takes them here.
      const meanwhile = takePendingSignals;
      await stopHolders(lock.store, lock.name, { signal: SIG.TERM, grace: GRACE_MS, deadline, meanwhile });
    } catch (error) {
      if (!(error instanceof StopRefused)) throw error;
      throw new CannotAcquireLock(
        { name: lock.name, lockfile: lock.lockfile, holder: (await lock.holder()) ?? undefined },
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

/**
 * Stops those who hold the lock now, and waits until they hold it no longer.
 * @returns the pids that were signalled, and those of them that hold it still: SIGKILL has not ended them
 * @throws {StopRefused} when it is not proven who holds it, or we may not signal it: then nobody was
 */
export async function stopHolders(
  store: Store,
  name: string,
  { signal, grace, deadline = Number.POSITIVE_INFINITY, meanwhile }: StopOptions,
): Promise<{ stopped: number[]; left: number[] }> {
  const targets = await pinTargets(store, name);
  try {
    for (const { process } of targets) {
      if (process.send(0) === -E.EPERM)
        throw new StopRefused(`we may not signal pid ${process.pid}, which holds '${printable(name)}'`);
    }
    /** Those who hold it still. */
    const remaining = async () => {
      const now = new Map<string, LockStatus>();
      for (const { lock } of targets) now.set(lock.name, await store.status(lock.name));
      return targets.filter(({ lock, holder }) => holdsStill(now.get(lock.name)!, holder));
    };
    const letGo = async (milliseconds: number, again?: (held: Target[]) => void) => {
      for (const end = Math.min(Date.now() + milliseconds, deadline); ; await Bun.sleep(LOOK_MS)) {
        meanwhile?.();
        const held = await remaining();
        if (held.length === 0 || Date.now() >= end) return held.length === 0;
        again?.(held);
      }
    };
    const done = async () => ({
      stopped: targets.map(({ pid }) => pid),
      left: (await remaining()).map(({ pid }) => pid),
    });

    if (targets.length === 0) return done();
    if (signal !== SIG.KILL) {
      for (const { process } of targets) {
        process.send(signal);
        if (isStopped(process.pid)) process.send(SIG.CONT); // or it would get the signal only when somebody continues it
      }
      if ((await letGo(grace)) || Date.now() >= deadline) return done();
    }
    // The command first: its wrapper then tidies up and ends by itself. Killed first, it would leave a command with the lock.
    const commands = (await remaining()).filter(({ holder }) => killCommand(holder));
    if (commands.length > 0 && (await letGo(WRAPPER_MS))) return done();
    await letGo(KILL_MS, (held) => {
      for (const { process } of targets) process.send(SIG.KILL);
      for (const { lock } of held) killAllHolding(lock.lockfile);
    });
    return done();
  } finally {
    for (const { process } of targets) process[Symbol.dispose]();
  }
}

/** The processes to be stopped, pinned before they are looked at for the last time. */
async function pinTargets(store: Store, name: string) {
  for (const deadline = Date.now() + RECORD_MS; ; await Bun.sleep(LOOK_MS)) {
    let refusal: StopRefused | undefined;
    const pinned: (Target & { process: PinnedProcess })[] = [];
    try {
      for (const target of targetsOf(await lookUp(store, name)))
        pinned.push({ ...target, process: new PinnedProcess(target.pid) });
      const now = targetsOf(await lookUp(store, name)).map(({ pid }) => pid);
      if (now.join() === pinned.map(({ pid }) => pid).join()) return pinned;
    } catch (error) {
      if (!(error instanceof StopRefused)) throw error;
      refusal = error;
    }
    for (const { process } of pinned) process[Symbol.dispose]();
    if (refusal && Date.now() >= deadline) throw refusal;
  }
}

/** @throws {StopRefused} when it is not proven who holds it */
function targetsOf(lock: LockStatus): Target[] {
  const shown = printable(lock.name);
  if (lock.state === "unknown") throw new StopRefused(`we may not see who holds '${shown}'`);
  if (lock.state === "free") return [];
  if (lock.slots) return lock.slots.flatMap(targetsOf);
  const others = (lock.others ?? []).filter(({ alive }) => alive);
  return [lock.holder ?? {}, ...others].map((holder) => {
    const { pid, alive, host, commandPid } = holder;
    // A holder without a host has no record: the kernel names it. It may be one of many readers, of whom one is recorded.
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

/** Has this holder the lock, or what it left behind? */
function holdsStill({ state, holder, others = [] }: LockStatus, { pid }: Holder): boolean {
  return state === "held" && [holder, ...others].some((now) => now?.pid === pid);
}

/** Kills the command of a wrapper. Only if it is: the record may name any process. */
function killCommand({ pid, commandPid }: Holder): boolean {
  if (commandPid === undefined) return false;
  using command = new PinnedProcess(commandPid);
  return parentOf(commandPid) === pid && command.send(SIG.KILL) === 0;
}

/** Kills every process that has this lock's open file: those that the holder left behind. */
function killAllHolding(lockfile: string): void {
  for (const pid of processesHolding(lockfile)) {
    using holding = new PinnedProcess(pid);
    if (holdsLock(pid, lockfile)) holding.send(SIG.KILL);
  }
}
