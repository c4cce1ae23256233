/**
 * How a lock is acquired and released in any store: at once, in the queue, as one of N slots, or coalesced.
 *
 * `Lock` and `exclusive run` are the callers. Locks in files that this process holds are released at exit, in the
 * middle of a scope or of a wait too, so that no file stays behind.
 */
import { type Duration, milliseconds } from "./duration.ts";
import { CannotAcquireLock, LockTimeout } from "./errors.ts";
import type { Holder } from "./holder.ts";
import { checkName, queueHeadName, slotName } from "./name.ts";
import type { Lease, PlaceChange, Request, Store } from "./store/store.ts";

/** Pause between two looks at the files of held locks, in milliseconds. */
const LOOK_MS = 1000;

/** How long to try. */
export interface AcquireOptions {
  /** Wait at most this long: milliseconds, or text such as `"30s"`. */
  timeout?: Duration | undefined;
  /** Wait without limit. */
  wait?: boolean | undefined;
  /**
   * Wait only if no other waiter with `coalesce` is in the queue, and be refused at once otherwise: the run of that
   * waiter has not begun, so it will do the work of this one too.
   */
  coalesce?: boolean | undefined;
  /** Gives up the wait; `acquire` is then rejected with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** A lease that ends at once: that of a lock in a file. */
export interface SyncLease extends Lease {
  releaseSync(): void;
  /** Keeps the lock's file at its path: to be called about once a second. */
  lookAfterFile(): PlaceChange | undefined;
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
    throw new TypeError(`slots must be a whole number from 1 to 64, not ${slots}`);
  if (slots !== undefined && (file !== undefined || shared))
    throw new TypeError("slots goes with neither file nor shared");
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
    name: request.name,
    lockfile: locationOf(store, request),
    holder: store.holderSync(slotNames(request)[0]!),
  });
}

/** Acquires a lock in a file; undefined when it is held. @throws {LockFileError} as `acquireSync` */
export function tryAcquireSync<L extends SyncLease>(store: SyncStore<L>, request: Request): L | undefined {
  for (const name of slotNames(request)) {
    const lease = store.tryAcquireSync({ ...request, name });
    if (lease !== undefined) return releasedAtExit(lease);
  }
  return undefined;
}

/**
 * Acquires a lock, and waits for it where the options say so.
 * @throws {CannotAcquireLock} when it is held, and is not waited for
 * @throws {LockTimeout} when it is still held after `timeout`
 * @throws {LockFileError} when the lock file cannot be made or locked
 * @throws {StoreError} when the store is unreachable or refuses the request
 */
export async function acquire<L extends Lease>(
  store: Store<L>,
  request: Request,
  options: AcquireOptions = {},
): Promise<L> {
  const { signal, coalesce = false } = options;
  signal?.throwIfAborted();
  const given = options.timeout === undefined ? undefined : milliseconds(options.timeout);
  const waits = options.wait || (given !== undefined && given > 0);
  const timeout = given === Number.POSITIVE_INFINITY ? undefined : given;
  const deadline = timeout === undefined ? undefined : timeoutSignal(timeout);
  const giveUp = AbortSignal.any([signal, deadline].filter((signal) => signal !== undefined));
  const refusal = async () => ({
    name: request.name,
    lockfile: locationOf(store, request),
    holder: (await holderOf(store, request)) ?? undefined,
  });
  try {
    const lease =
      (await tryAny(store, request, giveUp)) ??
      (waits ? await waitForAny(store, request, giveUp, coalesce) : undefined);
    if (lease === undefined) throw new CannotAcquireLock(await refusal());
    return releasedAtExit(lease);
  } catch (error) {
    if (timeout === undefined || error !== deadline?.reason) throw error;
    throw new LockTimeout(await refusal(), timeout / 1000);
  }
}

/** Fires after this time. For 0 it has already fired, so that no attempt waits. */
const timeoutSignal = (milliseconds: number): AbortSignal =>
  milliseconds === 0 ? AbortSignal.abort() : AbortSignal.timeout(milliseconds);

async function tryAny<L extends Lease>(
  store: Store<L>,
  request: Request,
  signal: AbortSignal,
): Promise<L | undefined> {
  for (const name of slotNames(request)) {
    const lease = await store.tryAcquire({ ...request, name }, signal);
    if (lease !== undefined) return lease;
  }
  return undefined;
}

/**
 * Waits for the lock, or for one of its slots; undefined where another waiter with `coalesce` is in the queue.
 *
 * The head of the queue holds a lock of its own (`queueHeadName`). With slots, all other waiters queue behind it; with
 * `coalesce`, the fact that it is held means that a run is already queued. It is released as soon as the lock itself is
 * acquired: a later arrival then sees work that has begun, and waits for a run of its own.
 */
async function waitForAny<L extends Lease>(
  store: Store<L>,
  request: Request,
  signal: AbortSignal,
  coalesce: boolean,
): Promise<L | undefined> {
  if (request.slots === undefined && !coalesce) return store.waitAcquire(request, signal);
  const head: Request = { name: queueHeadName(request.name), mode: "exclusive" };
  const lease = coalesce ? await store.tryAcquire(head, signal) : await store.waitAcquire(head, signal);
  if (lease === undefined) return undefined;
  releasedAtExit(lease);
  try {
    return (
      (await tryAny(store, request, signal)) ??
      (await firstOf(slotNames(request), signal, (name, signal) =>
        store.waitAcquire({ ...request, name }, signal),
      ))
    );
  } finally {
    await release(lease);
  }
}

/** The first lease. The other attempts are aborted, and a lease that one of them obtained meanwhile is released. */
async function firstOf<L extends Lease>(
  names: string[],
  signal: AbortSignal,
  wait: (name: string, signal: AbortSignal) => Promise<L>,
): Promise<L> {
  const enough = new AbortController();
  const all = names.map((name) => wait(name, AbortSignal.any([signal, enough.signal])));
  try {
    const winner = await Promise.any(all).catch((error: AggregateError) => {
      throw error.errors[0];
    });
    enough.abort();
    for (const result of await Promise.allSettled(all)) {
      if (result.status === "fulfilled" && result.value !== winner) await result.value.release();
    }
    return winner;
  } finally {
    enough.abort();
  }
}

/** The holder of a lock, as far as the record and the OS can tell; null when the lock is free. */
export async function holderOf(store: Store, request: Request): Promise<Holder | null> {
  for (const name of slotNames(request)) {
    const { state, holder } = await store.status(name);
    if (state !== "free") return holder ?? {};
  }
  return null;
}

/** Releases a lock. A second call does nothing. */
export async function release(lease: Lease): Promise<void> {
  if (isSync(lease)) releaseSync(lease);
  else await lease.release();
}

/** Releases a lock in a file. A second call does nothing. */
export function releaseSync(lease: SyncLease): void {
  held.delete(lease);
  lease.releaseSync();
}

/** The locks in files that this process holds. A lock of another store ends with its connection or lease. */
const held = new Set<SyncLease>();
let watchingExit = false;
let lookingAfter: Timer | undefined;

/**
 * Looks after the files of the held locks, while the program's event loop turns. It does not keep the loop alive.
 * @param report called when another program has removed one
 */
export function lookAfterHeld(report: (change: PlaceChange) => void): void {
  lookingAfter ??= setInterval(() => {
    if (held.size === 0) {
      clearInterval(lookingAfter);
      lookingAfter = undefined;
    }
    for (const lease of held) {
      const change = lease.lookAfterFile();
      if (change !== undefined) report(change);
    }
  }, LOOK_MS).unref();
}

const isSync = (lease: Lease): lease is SyncLease => "releaseSync" in lease;

function releasedAtExit<L extends Lease>(lease: L): L {
  if (!isSync(lease)) return lease;
  held.add(lease);
  if (!watchingExit) process.on("exit", releaseAll);
  watchingExit = true;
  return lease;
}

/** Releases every lock in a file that this process holds, as the process is about to end. */
export function releaseAll(): void {
  for (const lease of held) lease.releaseSync();
}
