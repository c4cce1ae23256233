/**
 * How a lock is acquired and released in any store: at once, in the queue, as one of N slots, or coalesced.
 *
 * `Lock` and `exclusive run` are the callers.
 */
import { type Duration, limitInWords, withUnit } from "./duration.ts";
import {
  CannotAcquireLock,
  EndlessWait,
  LockTimeout,
  type Refusal,
  StoreError,
  Superseded,
  WrongArgument,
} from "./errors.ts";
import type { Holder } from "./holder.ts";
import { checkName, queueHeadName, slotName } from "./name.ts";
import type { Endless } from "./store/inheritance.ts";
import { unlessAway } from "./store/outage.ts";
import { hold, isHeldAroundUs, release, type SyncLease } from "./store/own-holds.ts";
import type { Lease, Request, Store } from "./store/store.ts";
import { Deadline, limited, within } from "./store/time-limit.ts";

/** A refusal names the holder if the store answers within this time, in milliseconds. */
const HOLDER_MS = 1000;

/** No answer of a store; any other error is thrown again. */
function unanswered(error: unknown): null {
  if (error instanceof StoreError || error instanceof DOMException) return null;
  throw error;
}

export {
  lookAfterHeld,
  release,
  releaseAll,
  releaseAttached,
  releaseSync,
  type SyncLease,
} from "./store/own-holds.ts";

/** How long to try. */
export interface AcquireOptions {
  /** Wait at most this long: milliseconds, or text such as `"30s"`. */
  timeout?: Duration | undefined;
  /** Wait without limit. */
  wait?: boolean | undefined;
  /**
   * Wait behind another waiter with `coalesce`, if there is one, and be refused as soon as its run begins: that does the
   * work of this one too. If it gives up, or is killed, the next takes its place.
   */
  coalesce?: boolean | undefined;
  /**
   * Wait, and give up (with `Superseded`) as soon as a newer one with `latest` wants the lock: at most one waits, the newest.
   * Not with `coalesce`, which keeps the first.
   */
  latest?: boolean | undefined;
  /** Gives up the wait; `acquire` is then rejected with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** A store that answers at once: that of locks in files. An interface, so that no type of the library names the OS. */
export interface SyncStore<L extends SyncLease> extends Store<L> {
  tryAcquireSync(request: Request): L | undefined;
  holderSync(name: string): Holder | undefined;
}

/** What names a lock, and how it is to be held. */
interface RequestOptions {
  name: string;
  shared?: boolean | undefined;
  label?: string | undefined;
  slots?: number | undefined;
  /** Of the store: only checked here. */
  file?: string | undefined;
}

/**
 * The request for a lock, checked.
 * @throws {TypeError} for an empty name, and for options that exclude each other
 */
export function requestFor({ name, shared, label, slots, file }: RequestOptions): Request {
  checkName(name);
  if (slots !== undefined && !(Number.isInteger(slots) && slots >= 1 && slots <= 64))
    throw new WrongArgument(`slots must be a whole number from 1 to 64, not ${slots}`);
  if (slots !== undefined && (file !== undefined || shared))
    throw new WrongArgument("slots cannot be combined with file or shared");
  return { name, mode: shared ? "shared" : "exclusive", label, slots };
}

/** The locks of which one is to be acquired: the slots, else the lock itself. */
const slotNames = ({ name, slots }: Request): string[] =>
  slots === undefined ? [name] : Array.from({ length: slots }, (_, i) => slotName(name, i + 1));

/** Path of the lock file, or the store's URL without its secrets; with slots, that of the first one. */
export const locationOf = (store: Store, request: Request): string => store.location(slotNames(request)[0]!);

/**
 * Acquires a lock in a file, or refuses at once.
 * @throws {CannotAcquireLock} when it is held
 * @throws {LockFileError} when the lock file cannot be made or locked
 */
export function acquireSync<L extends SyncLease>(store: SyncStore<L>, request: Request): L {
  const lease = tryAcquireSync(store, request);
  if (lease !== undefined) return lease;
  throw new CannotAcquireLock({
    lock: request.name,
    lockfile: locationOf(store, request),
    holder: store.holderSync(slotNames(request)[0]!),
  });
}

/** Acquires a lock in a file; undefined when it is held. @throws {LockFileError} as `acquireSync` */
export function tryAcquireSync<L extends SyncLease>(store: SyncStore<L>, request: Request): L | undefined {
  for (const name of slotNames(request)) {
    const lease = store.tryAcquireSync({ ...request, name });
    if (lease !== undefined) return hold(lease, store, name);
  }
  return undefined;
}

/**
 * Acquires a lock, and waits for it where the options say so.
 * @param isCommand this process is a command of ours: it has taken no lock yet, so any lock of an open file is inherited
 * @throws {CannotAcquireLock} when it is held, and is not waited for, or the wait could never end (`EndlessWait`)
 * @throws {Superseded} when a newer one with `latest` has come
 * @throws {LockTimeout} when it is still held after `timeout`
 * @throws {LockFileError} when the lock file cannot be made or locked
 * @throws {StoreError} when the store is unreachable or refuses the request
 */
export async function acquire<L extends Lease>(
  store: Store<L>,
  request: Request,
  options: AcquireOptions = {},
  isCommand = false,
): Promise<L> {
  const { signal, coalesce = false, latest = false } = options;
  signal?.throwIfAborted();
  if (latest && coalesce) throw new WrongArgument("latest cannot be combined with coalesce");
  const given = options.timeout === undefined ? undefined : withUnit(options.timeout);
  const waits = options.wait || (latest && given === undefined) || (given !== undefined && given > 0);
  const timeout = given === Number.POSITIVE_INFINITY ? undefined : given;
  using deadline = timeout === undefined ? undefined : new Deadline(timeout);
  const giveUp = AbortSignal.any([signal, deadline?.signal].filter((signal) => signal !== undefined));
  const refusal = async () => ({
    lock: request.name,
    lockfile: locationOf(store, request),
    holder: (await limited(HOLDER_MS, () => holderOf(store, request)).catch(unanswered)) ?? undefined,
  });
  try {
    if (latest && waits) {
      const usual = (signal: AbortSignal) => acquire(store, request, { wait: true, signal }, isCommand);
      const { acquireAsLatest } = await import("./store/latest.ts");
      const newest = await acquireAsLatest(store, request.name, giveUp, isCommand, usual);
      if (newest !== undefined) return newest;
      throw new Superseded(await refusal());
    }
    const tried = tryAny(store, request, giveUp);
    const lease = await (waits ? tried.catch(unlessAway(giveUp)) : tried);
    if (lease !== undefined) return lease;
    // What limits the wait may release the lock as well: only without a limit is it sure that nothing will.
    if (waits && timeout === undefined && signal === undefined && isHeldByUs(store, request))
      throw new CannotAcquireLock(await refusal());
    const found = waits
      ? await waitUnlessEndless(store, request, { signal: giveUp, coalesce }, refusal, isCommand)
      : undefined;
    if (found === undefined) throw new CannotAcquireLock(await refusal());
    return found;
  } catch (error) {
    if (timeout === undefined || error !== deadline?.signal.reason) throw error;
    throw new LockTimeout(await refusal(), limitInWords(timeout));
  }
}

async function tryAny<L extends Lease>(
  store: Store<L>,
  request: Request,
  signal: AbortSignal,
): Promise<L | undefined> {
  for (const name of slotNames(request)) {
    const lease = await store.tryAcquire({ ...request, name }, signal);
    if (lease !== undefined) return hold(lease, store, name);
  }
  return undefined;
}

/** Do we hold the lock, or each of its slots, ourselves? */
const isHeldByUs = (store: Store, request: Request): boolean =>
  slotNames(request).every((name) => isHeldAroundUs(store, name));

/**
 * Two processes may begin to wait for each other at the same moment: after so many milliseconds both can be seen. The one
 * with the smaller pid looks once more before it is refused: by then the other is gone.
 */
const NEXT_LOOK_MS = 250;

async function waitUnlessEndless<L extends Lease>(
  store: Store<L>,
  request: Request,
  { signal, coalesce }: { signal: AbortSignal; coalesce: boolean },
  refusal: () => Promise<Refusal>,
  isCommand: boolean,
): Promise<L | undefined> {
  const { endlessWait, waitCircle } = await import("./store/inheritance.ts");
  const endless = new AbortController();
  const names = slotNames(request);
  const refuse = async (found: Endless) =>
    endless.abort(new EndlessWait(await refusal(), found.reason, found.inherited));
  const lookAgain = async (looks: number) => {
    const found = await waitCircle(store, request.name, names);
    if (found === undefined) return;
    if (looks === 1 && process.pid < (found.waiter ?? 0)) next = lookLater(2);
    else await refuse(found);
  };
  // A store that does not answer is for the wait itself to report.
  const lookLater = (looks: number) => setTimeout(() => lookAgain(looks).catch(() => {}), NEXT_LOOK_MS);
  const looking = endlessWait(store, request.name, names, isCommand);
  const found = await within(signal, looking).catch(() => undefined);
  if (found !== undefined) await refuse(found);
  endless.signal.throwIfAborted();
  let next = lookLater(1);
  try {
    return await waitForAny(store, request, AbortSignal.any([signal, endless.signal]), coalesce);
  } finally {
    clearTimeout(next);
  }
}

/**
 * Waits for the lock, or for one of its slots; undefined where another waiter with `coalesce` is in the queue.
 *
 * The head of the queue holds a lock of its own (`queueHeadName`), and all other waiters queue behind it. It is released
 * as soon as the lock itself is acquired. With `coalesce` it then carries the mark that its run begins: who waited behind
 * it is done. Without the mark the head has given up, and the next in its queue is head. Later arrivals find the lock of
 * the head free, and wait for a run of their own.
 */
async function waitForAny<L extends Lease>(
  store: Store<L>,
  request: Request,
  signal: AbortSignal,
  coalesce: boolean,
): Promise<L | undefined> {
  if (request.slots === undefined && !coalesce)
    return hold(await store.waitAcquire(request, signal), store, request.name);
  const head: Request = { name: queueHeadName(request.name), mode: "exclusive" };
  const lease = coalesce
    ? await headOfRuns(store, request, head, signal)
    : await store.waitAcquire(head, signal);
  if (lease === undefined) return undefined;
  hold(lease, store, head.name);
  try {
    const { firstOf } = await import("./store/first-of.ts");
    const found =
      (await tryAny(store, request, signal).catch(unlessAway(signal))) ??
      (await firstOf(slotNames(request), signal, async (name, signal) =>
        hold(await store.waitAcquire({ ...request, name }, signal), store, name),
      ));
    if (store.waitBehind !== undefined) lease.recordCommand?.(process.pid);
    return found;
  } finally {
    await release(lease);
  }
}

/** The lock of the queue head; undefined when another head's run has begun meanwhile. */
async function headOfRuns<L extends Lease>(
  store: Store<L>,
  request: Request,
  head: Request,
  signal: AbortSignal,
): Promise<L | undefined> {
  const lease = await store.tryAcquire(head, signal).catch(unlessAway(signal));
  if (lease !== undefined) return lease;
  if (store.waitBehind !== undefined) return store.waitBehind(head, signal);
  const before = await runsOf(store, request).catch(unlessAway(signal));
  const next = await store.waitAcquire(head, signal);
  const now = await runsOf(store, request).catch(() => []);
  if (now.every((run) => before?.includes(run) ?? true)) return next;
  await next.release();
  return undefined;
}

/** What tells the present holders of a lock, or of its slots, from earlier and later ones. */
async function runsOf(store: Store, request: Request): Promise<string[]> {
  const all = await Promise.all(slotNames(request).map((name) => store.status(name)));
  const holders = all.map(({ holder }) => holder).filter((holder) => holder !== undefined);
  return holders.map(
    ({ host, pid, acquiredAt, token }) => `${host} ${pid} ${acquiredAt?.getTime()} ${token}`,
  );
}

/** The holder of a lock, as far as the record and the OS can tell; null when the lock is free. */
export async function holderOf(store: Store, request: Request): Promise<Holder | null> {
  for (const name of slotNames(request)) {
    const { state, holder } = await store.status(name);
    if (state !== "free") return holder ?? {};
  }
  return null;
}
