/** `Lock`: acquire, release, forever, using. */
import {
  type AcquireOptions,
  acquire,
  acquireSync,
  holderOf,
  locationOf,
  lookAfterHeld,
  release,
  releaseAll,
  releaseSync,
  requestFor,
  type SyncLease,
} from "./acquire.ts";
import { withUnit } from "./duration.ts";
import { CannotAcquireLock, type LockLost, printable } from "./errors.ts";
import type { Holder } from "./holder.ts";
import { type LockOptions, storeFor } from "./lock-options.ts";
import { LockRecord } from "./lock-record.ts";
import { inform, type Logger } from "./logger.ts";
import { callerName } from "./name.ts";
import { clock } from "./os/clock.ts";
import { isIgnored } from "./os/signal-sets.ts";
import { FileStore } from "./store/file/file-store.ts";
import { releaseAt } from "./store/own-holds.ts";
import {
  describePlaceChange,
  type Lease,
  type PlaceChange,
  type Request,
  type Store,
} from "./store/store.ts";

/**
 * A named lock. While one process holds it, no other does.
 *
 * @example Refuse at once when another process holds it
 * ```ts
 * using lock = new Lock({ name: "backup" }).acquireSync();
 * ```
 * @example Wait up to 30 seconds
 * ```ts
 * await using lock = await new Lock({ name: "deploy" }).acquire({ timeout: "30s" });
 * ```
 * @example Lock the whole program, or end it with status 1
 * ```ts
 * new Lock({ die: true }).forever();
 * ```
 */
export class Lock implements Disposable, AsyncDisposable {
  readonly name: string;
  readonly #request: Request;
  readonly #store: Store;
  readonly #die: boolean;
  /** In milliseconds. */
  readonly #holdFor: number;
  /** The end of that time, on `clock()`. */
  #keepUntil = 0;
  readonly #logger: Logger | undefined;
  #lease: Lease | undefined;
  #lockfile: string;
  readonly #record: LockRecord | undefined;

  /**
   * @param options which lock; nothing is acquired yet
   * @throws `TypeError` for an empty name, options that exclude each other, or a `store` that is not a store
   * @throws `RangeError` for a `holdFor` that is not a duration
   */
  constructor(options: LockOptions = {}) {
    this.#request = requestFor({ ...options, name: options.name ?? callerName(Lock) });
    this.name = this.#request.name;
    this.#store = storeFor(options);
    this.#die = options.die ?? false;
    this.#holdFor = withUnit(options.holdFor ?? 0);
    this.#logger = options.logger;
    const logFile = options.logFile ?? process.env.EXCLUSIVE_LOG_FILE;
    this.#record = logFile ? new LockRecord(logFile, this.#request) : undefined;
    this.#lockfile = locationOf(this.#store, this.#request);
  }

  /** Path of the lock file, or the store's URL without its secrets; with slots, of the slot that was acquired last. */
  get lockfile(): string {
    return this.#lockfile;
  }

  /**
   * The fencing token: larger than that of every earlier holder. Undefined while the lock is not held, and for a file,
   * which needs none: see docs/fencing.md.
   */
  get token(): bigint | undefined {
    return this.#lease?.token;
  }

  /**
   * Fires when ownership can no longer be proven, with a {@link LockLost} as its reason, while a third of the lease is left to
   * stop the work. Undefined for a file: such a lock cannot be lost.
   */
  get lost(): AbortSignal | undefined {
    return this.#lease?.lost;
  }

  /** Whether this object holds the lock: false from the moment at which `lost` fires, also while the event loop is blocked. */
  get held(): boolean {
    return this.#lease !== undefined && this.#lease.lost?.aborted !== true;
  }

  /**
   * Acquires the lock, or refuses at once: also when this same process holds it.
   * @throws {@link CannotAcquireLock} when it is held
   * @throws {@link LockFileError} when the lock file cannot be made or locked
   * @throws `TypeError` with a remote store
   */
  acquireSync(): this {
    const store = this.#store;
    if (!(store instanceof FileStore))
      throw new TypeError("acquireSync() needs a lock in a file: with this store use acquire()");
    this.#record?.begin();
    try {
      return this.#hold(acquireSync(store, this.#request));
    } catch (error) {
      return this.#fail(error);
    }
  }

  /**
   * Acquires the lock, and waits for it where the options say so.
   *
   * A wait that could never end is refused. With `wait`, and neither `timeout` nor `signal`: when another `Lock` of this
   * program holds the lock, and it is in a file. (A call of an `exclusive()` function may wait for another call.) And however long the wait may
   * last: when what holds the lock waits for this process, as `exclusive run` waits for its command.
   * @throws {@link CannotAcquireLock} when it is held, and is not waited for
   * @throws {@link EndlessWait} when the holder waits for this process
   * @throws {@link LockTimeout} when it is still held after `timeout`
   * @throws {@link LockFileError} when the lock file cannot be made or locked
   * @throws {@link StoreError} when the store is unreachable or refuses the request
   */
  async acquire(options: AcquireOptions = {}): Promise<this> {
    this.#record?.begin();
    try {
      return this.#hold(await acquire(this.#store, this.#request, options));
    } catch (error) {
      return this.#fail(error);
    }
  }

  /**
   * Releases the lock; does nothing when it is not held. With `holdFor` it is kept until that time is over.
   * @throws `TypeError` with a remote store
   */
  releaseSync(): void {
    const lease = this.#lease;
    if (lease === undefined) return;
    if (!isSync(lease))
      throw new TypeError("releaseSync() needs a lock in a file: with this store use release()");
    this.#lease = undefined;
    releaseSync(lease);
    this.#logReleased(lease);
  }

  /** Releases the lock; does nothing when it is not held. With `holdFor` it is kept until that time is over. */
  async release(): Promise<void> {
    const lease = this.#lease;
    if (lease === undefined) return;
    this.#lease = undefined; // before the store releases it: from then on this object may acquire it again
    if (isSync(lease) || clock() >= this.#keepUntil) await release(lease);
    else void releaseAt(this.#keepUntil, lease);
    this.#logReleased(lease);
  }

  /** Releases the lock at the end of a `using` declaration's scope. */
  [Symbol.dispose](): void {
    if (this.#lease !== undefined && !isSync(this.#lease)) {
      this.release().catch(() => {}); // a missing `await` must not leak the lock
      throw new TypeError("releasing a lock of this store takes time: declare it with 'await using'");
    }
    this.releaseSync();
  }

  /** Releases the lock at the end of an `await using` declaration's scope. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  /** The holder, as far as the record and the OS can tell; null when the lock is free. */
  async holder(): Promise<Holder | null> {
    return holderOf(this.#store, this.#request);
  }

  /**
   * Acquires the lock for the rest of the program: it is released when the program exits, in whatever way.
   * Signals keep their default effect. A program with its own handler for SIGINT, SIGTERM or SIGHUP keeps it, and a
   * signal that was ignored at start stays ignored. As every handler in JavaScript, ours runs when the program next
   * returns to its event loop. Under `bun --hot` the lock that an earlier evaluation of the program has taken is kept.
   * @throws {@link CannotAcquireLock} when it is held
   * @throws {@link LockFileError} when the lock file cannot be made or locked
   * @throws `TypeError` with a remote store
   */
  forever(): this {
    const key = `${this.#lockfile}\0${this.name}`;
    const earlier = program.forever.get(key);
    if (earlier !== undefined && earlier.evaluation !== EVALUATION) this.#lease = earlier.lease;
    else this.acquireSync();
    program.forever.set(key, { lease: this.#lease!, evaluation: EVALUATION });
    releaseAtSignals();
    return this;
  }

  #hold(lease: Lease): this {
    if (this.#lease !== undefined) {
      // A Lock object tracks one lease: a second one, of a shared lock or another slot, could never be released.
      release(lease).catch(() => {});
      const holder = { pid: process.pid, alive: true, mode: this.#request.mode };
      throw new CannotAcquireLock({ lock: this.name, lockfile: this.#lockfile, holder });
    }
    this.#lease = lease;
    this.#lockfile = lease.location;
    this.#record?.acquired(lease);
    this.#keepUntil = this.#holdFor && clock() + this.#holdFor;
    if (isSync(lease)) {
      lease.keepUntil(this.#keepUntil);
      lookAfterHeld(warnOf);
    }
    inform(this.#logger, () => `acquired '${printable(this.name)}' (${printable(lease.location)})`);
    return this;
  }

  #logReleased({ location }: Lease): void {
    this.#record?.released();
    inform(this.#logger, () => `released '${printable(this.name)}' (${printable(location)})`);
  }

  /** With `die`, a refusal ends the program. */
  #fail(error: unknown): never {
    this.#record?.refused(error);
    if (!this.#die || !(error instanceof CannotAcquireLock)) throw error;
    console.error(error.message);
    process.exit(1);
  }
}

const isSync = (lease: Lease): lease is SyncLease => "releaseSync" in lease;

/** What stays when `bun --hot` evaluates the program again: this module is then another one, in the same process. */
interface Program {
  /** The locks taken by `forever()`, by lock file and name. */
  forever: Map<string, { lease: Lease; evaluation: symbol }>;
  /** `releaseAll` of each evaluation. */
  releases: Set<() => void>;
}

const PROGRAM = Symbol.for("exclusiveprocess.program");
const EVALUATION = Symbol();
const global = globalThis as { [PROGRAM]?: Program };
global[PROGRAM] ??= { forever: new Map(), releases: new Set() };
const program = global[PROGRAM];
/** A lock file that another program removed is a warning of the runtime: on stderr, unless the program handles it. */
function warnOf(change: PlaceChange): void {
  process.emitWarning(describePlaceChange(change), { type: "ExclusiveWarning", code: "ELOCKFILE" });
}

/** Signals that end the program release its locks first: the "exit" event does not come for them. */
function releaseAtSignals(): void {
  const first = program.releases.size === 0;
  program.releases.add(releaseAll);
  if (!first) return;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    if (isIgnored(signal)) continue;
    const die = () => {
      if (process.listenerCount(signal) > 1) return; // the program's own handler decides
      // Before `bun --watch` starts the program again it emits SIGTERM, without a signal: then this never runs.
      setImmediate(() => {
        for (const release of program.releases) release();
        process.off(signal, die);
        process.kill(process.pid, signal);
      });
    };
    // Before all others: a handler set by `once` is no longer counted after its turn.
    process.prependListener(signal, die);
  }
}
