/** `Lock`: acquire, release, forever, using. */
import { type Duration, milliseconds } from "./duration.ts";
import { CannotAcquireLock, LockTimeout, printable } from "./errors.ts";
import type { Holder } from "./holder.ts";
import { inform, type Logger } from "./logger.ts";
import { callerName, checkName, lineName, slotName } from "./name.ts";
import { isIgnored } from "./os/signal-sets.ts";
import { FileLease } from "./store/file/file-lease.ts";
import { FileStore } from "./store/file/file-store.ts";
import { checkStoreUrl, directoryOf, LazyStore } from "./store/open-store.ts";
import type { Lease, Request, Store } from "./store/store.ts";

/** Where locks can live: a URL, or a store that is open already. */
type StoreOption = string | Store | undefined;

/** What a lock is. */
// biome-ignore lint/suspicious/noExplicitAny: where nothing says which store it is, any use of it is fine by the types
export interface LockOptions<S extends StoreOption = any> {
  /** Any text. Default: the absolute path of the file that calls; in a compiled program, the executable's. */
  name?: string | undefined;
  /** Directory of the lock file. Default: `EXCLUSIVE_DIR`, else `/var/lock` if it can be written, else the temp directory. */
  dir?: string | undefined;
  /** Lock this existing file or directory as it is; it is never written to nor deleted. */
  file?: string | undefined;
  /** Share the lock with other holders that share it, to the exclusion of those that do not. */
  shared?: boolean | undefined;
  /** Let so many hold the lock at a time: they are the locks `NAME.1` … `NAME.N`. */
  slots?: number | undefined;
  /** Leave the lock file in place on release, emptied. */
  keep?: boolean | undefined;
  /** Text for people, kept in the record. */
  label?: string | undefined;
  /** When the lock is held: say so on stderr and exit with status 1. */
  die?: boolean | undefined;
  /**
   * Where the lock lives, if not in a file of this machine: `postgres://…`, `redis://…`, `etcd://…` (see `openStore`),
   * or a store that is open already. `acquire()` and `await using` then: its answers take time.
   */
  store?: S;
  /** With the URL of a store: how long it keeps the lock of a holder that has gone silent. Default `"15s"`. */
  ttl?: Duration | undefined;
  /** Told of each acquire and release. Default: none, or consola where `EXCLUSIVE_LOG=info`. */
  logger?: Logger | undefined;
}

/** How long to try. */
export interface AcquireOptions {
  /** Wait at most so long: milliseconds, or text such as `"30s"`. */
  timeout?: Duration | undefined;
  /** Wait without limit. */
  wait?: boolean | undefined;
  /**
   * Wait only if nobody else waits with `coalesce`, and be refused at once otherwise: whoever waits has not begun,
   * so its run will do the work of this one too.
   */
  coalesce?: boolean | undefined;
  /** Gives up the wait; `acquire` is then rejected with the signal's reason. */
  signal?: AbortSignal | undefined;
}

// Released when the program exits in the middle of a scope, or of a wait, so that no file stays behind.
const held = new Set<FileLease>();
let watchingExit = false;
let watchingSignals = false;

/** @internal Gives back all that this process holds in files, as it is about to end. */
export function releaseAll(): void {
  for (const lease of held) lease.releaseSync();
}

function releaseAtExit(lease: FileLease): void {
  held.add(lease);
  if (watchingExit) return;
  watchingExit = true;
  process.on("exit", releaseAll);
}

function releaseAtSignals(): void {
  if (watchingSignals) return;
  watchingSignals = true;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    if (isIgnored(signal)) continue;
    const die = () => {
      if (process.listenerCount(signal) > 1) return; // the program's own handler decides
      releaseAll();
      process.off(signal, die);
      process.kill(process.pid, signal);
    };
    // Before all others: a handler that the program has set for once is gone when its turn is over.
    process.prependListener(signal, die);
  }
}

/** Calls that cannot wait for an answer: of the types, an argument that nobody can have where there is a store. */
type SyncOnly<S> = [S] extends [undefined] ? [] : [error: "a store across the network has no answer at once"];

/** A named lock. While one process holds it, no other does. */
// biome-ignore lint/suspicious/noExplicitAny: see LockOptions
export class Lock<S extends StoreOption = any> implements Disposable, AsyncDisposable {
  readonly name: string;
  readonly #options: LockOptions<S>;
  readonly #store: Store;
  #lease: Lease | undefined;
  #lockfile: string;

  /**
   * @param options what the lock is; nothing is taken yet
   * @throws {TypeError} for an empty name, options that exclude each other, or a `store` that is none
   */
  constructor(options: LockOptions<S> = {}) {
    this.#options = options;
    this.name = checkName(options.name ?? callerName(Lock));
    checkOptions(options);
    this.#store = storeFor(options);
    this.#lockfile = this.#store.place(options.slots ? slotName(this.name, 1) : this.name);
  }

  /** Path of the lock file, or the store's URL without its secrets; with slots, of the slot that was taken last. */
  get lockfile(): string {
    return this.#lockfile;
  }

  /** @internal What is held, for the command that hands it on. */
  get lease(): Lease | undefined {
    return this.#lease;
  }

  /** @internal Where the lock lives, for the command that stops its holder. */
  get store(): Store {
    return this.#store;
  }

  /**
   * The fencing token of what is held: larger than that of every earlier holder. Undefined for a file, which needs
   * none: see docs/fencing.md.
   */
  get token(): bigint | undefined {
    return this.#lease?.token;
  }

  /**
   * Fires when it can no longer be proven that the lock is ours, with a `LockLost` as its reason, while there is still a
   * third of the lease to stop what the lock protects. Undefined for a file: such a lock cannot be lost.
   */
  get lost(): AbortSignal | undefined {
    return this.#lease?.lost;
  }

  /** Does this object hold the lock? */
  get held(): boolean {
    return this.#lease !== undefined;
  }

  /**
   * Takes the lock, or refuses at once: also when this same process holds it.
   * @throws {CannotAcquireLock} when it is held
   * @throws {LockFileError} when the lock file cannot be made or locked
   * @throws {TypeError} with a store across the network
   */
  acquireSync(..._: SyncOnly<S>): this {
    const store = this.#store;
    if (!(store instanceof FileStore))
      throw new TypeError("acquireSync() needs a lock in a file: with this store use acquire()");
    for (const name of this.#places()) {
      const lease = store.tryAcquireSync(this.#request(name));
      if (lease !== undefined) return this.#hold(lease);
    }
    return this.#refuse(store.holderSync(this.#places()[0]!));
  }

  /**
   * Takes the lock, and waits for it where the options say so.
   * @throws {CannotAcquireLock} when it is held and there is nothing to wait for
   * @throws {LockTimeout} when it is still held after `timeout`
   * @throws {LockFileError} when the lock file cannot be made or locked
   * @throws {StoreError} when the store cannot be reached, or refuses us
   */
  async acquire(options: AcquireOptions = {}): Promise<this> {
    const { signal } = options;
    signal?.throwIfAborted();
    const given = options.timeout === undefined ? undefined : milliseconds(options.timeout);
    const waits = options.wait || (given !== undefined && given > 0);
    const timeout = given === Number.POSITIVE_INFINITY ? undefined : given;
    const deadline = timeout === undefined ? undefined : timeoutSignal(timeout);
    const giveUp = AbortSignal.any([signal, deadline].filter((signal) => signal !== undefined));
    try {
      const lease = await this.#try(giveUp);
      if (lease !== undefined) return this.#hold(lease);
      if (!waits) return this.#refuse(await this.holder());
      return this.#hold(await this.#waitAny(giveUp, options.coalesce));
    } catch (error) {
      if (deadline === undefined || error !== deadline.reason) throw error;
      return this.#refuse((await this.holder()) ?? undefined, timeout);
    }
  }

  /** Gives the lock back; does nothing when it is not held. */
  releaseSync(): void {
    const lease = this.#lease;
    if (lease === undefined) return;
    if (!(lease instanceof FileLease))
      throw new TypeError("releaseSync() needs a lock in a file: with this store use release()");
    this.#letGo();
    lease.releaseSync();
    this.#tellReleased(lease);
  }

  /** Gives the lock back; does nothing when it is not held. */
  async release(): Promise<void> {
    const lease = this.#lease;
    if (lease === undefined) return;
    this.#letGo(); // before the store knows: once it does, this object may have the lock again
    await lease.release();
    this.#tellReleased(lease);
  }

  [Symbol.dispose](): void {
    if (this.#lease !== undefined && !(this.#lease instanceof FileLease)) {
      this.release().catch(() => {}); // it must not be held for ever because of a word that was forgotten
      throw new TypeError("to give back a lock of this store takes time: declare it with 'await using'");
    }
    this.releaseSync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  /** Who holds the lock, as far as the record and the OS can say; null when nobody does. */
  async holder(): Promise<Holder | null> {
    for (const name of this.#places()) {
      const { state, holder } = await this.#store.status(name);
      if (state !== "free") return holder ?? {};
    }
    return null;
  }

  /**
   * Takes the lock for the rest of the program: it is released when the program exits, in whatever way.
   * Signals keep their default effect; a program that handles SIGINT, SIGTERM or SIGHUP itself goes on doing so, and
   * one that was started ignoring them too. As with every handler in JavaScript, such a signal has its effect when
   * the program next comes back to its event loop.
   * @throws {CannotAcquireLock} when it is held
   * @throws {LockFileError} when the lock file cannot be made or locked
   */
  forever(...sync: SyncOnly<S>): this {
    this.acquireSync(...sync);
    releaseAtSignals();
    return this;
  }

  #request(name: string): Request {
    const { shared, label, slots } = this.#options;
    return { name, mode: shared ? "shared" : "exclusive", label, slots };
  }

  /** The names of which one is to be taken. */
  #places(): string[] {
    const { slots } = this.#options;
    return slots === undefined
      ? [this.name]
      : Array.from({ length: slots }, (_, i) => slotName(this.name, i + 1));
  }

  async #try(signal: AbortSignal): Promise<Lease | undefined> {
    for (const name of this.#places()) {
      const lease = await this.#store.tryAcquire(this.#request(name), signal);
      if (lease !== undefined) return lease;
    }
    return undefined;
  }

  /**
   * Waits for one of the places. The next in line has a place of his own: with slots, the others wait for it behind
   * him; with `coalesce`, that it is taken says that somebody waits. He leaves it when he has the lock, not later: who
   * comes after that finds work that has begun, and must wait for a run of his own.
   */
  async #waitAny(signal: AbortSignal, coalesce: boolean | undefined): Promise<Lease> {
    const store = this.#store;
    const places = this.#places();
    if (this.#options.slots === undefined && !coalesce)
      return store.waitAcquire(this.#request(this.name), signal);
    const next = { name: lineName(this.name), mode: "exclusive" } as const;
    const line = coalesce ? await store.tryAcquire(next, signal) : await store.waitAcquire(next, signal);
    if (line === undefined) return this.#refuse(await this.holder());
    if (line instanceof FileLease) releaseAtExit(line);
    try {
      return (
        (await this.#try(signal)) ??
        (await firstOf(places, signal, (name, given) => store.waitAcquire(this.#request(name), given)))
      );
    } finally {
      if (line instanceof FileLease) held.delete(line);
      await line.release();
    }
  }

  #hold(lease: Lease): this {
    if (this.#lease !== undefined) {
      // Only where many may hold the lock: a second place for one object would be a place that nobody gives back.
      lease.release().catch(() => {});
      return this.#refuse({ pid: process.pid, alive: true, mode: this.#request(this.name).mode });
    }
    this.#lease = lease;
    this.#lockfile = lease.place;
    if (lease instanceof FileLease) releaseAtExit(lease);
    inform(this.#options.logger, () => `acquired '${printable(this.name)}' (${printable(lease.place)})`);
    return this;
  }

  #letGo(): void {
    const lease = this.#lease;
    this.#lease = undefined;
    if (lease instanceof FileLease) held.delete(lease);
  }

  #tellReleased({ place }: Lease): void {
    inform(this.#options.logger, () => `released '${printable(this.name)}' (${printable(place)})`);
  }

  #refuse(holder: Holder | null | undefined, waited?: number): never {
    const refusal = { name: this.name, lockfile: this.#lockfile, holder: holder ?? undefined };
    const error =
      waited === undefined ? new CannotAcquireLock(refusal) : new LockTimeout(refusal, waited / 1000);
    if (!this.#options.die) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  }
}

/** The first that succeeds; the others are given up, and what they got in the same moment is given back. */
async function firstOf(
  names: string[],
  signal: AbortSignal,
  wait: (name: string, signal: AbortSignal) => Promise<Lease>,
): Promise<Lease> {
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

/** Fires after so long; after no time at all, now. */
const timeoutSignal = (milliseconds: number): AbortSignal =>
  milliseconds === 0 ? AbortSignal.abort() : AbortSignal.timeout(milliseconds);

/** @throws {TypeError} for a store that is none, or with options that only files have */
function storeFor(options: LockOptions): Store {
  const { store, ttl, dir, file, keep } = options;
  if (store === undefined) return new FileStore(options);
  if (dir !== undefined || file !== undefined || keep)
    throw new TypeError("dir, file and keep are for locks in files: they do not go with store");
  if (typeof store !== "string") return store as Store;
  const directory = directoryOf(checkStoreUrl(store));
  return directory === undefined ? new LazyStore(store, { ttl }) : new FileStore({ dir: directory });
}

function checkOptions({ slots, file, shared }: LockOptions): void {
  if (slots !== undefined && !(Number.isInteger(slots) && slots >= 1 && slots <= 64)) {
    throw new TypeError(`slots must be a whole number from 1 to 64, not ${slots}`);
  }
  if (slots !== undefined && (file !== undefined || shared))
    throw new TypeError("slots goes with neither file nor shared");
}
