/**
 * The embedded default: one file per lock, locked by the kernel.
 *
 * States of one process and its lock file, one system call a transition. `test/torture/model.ts` explores the same chart,
 * with a crash possible before and after each step.
 *
 *   open ── absent ──> create ── EEXIST ──> open
 *     └─ present ─┐      └─ made ─┐
 *                 └────> lock <───┘
 *   lock ── EAGAIN ──> refused (try), or blocked in flock(2) until it is ours (wait)
 *     └─ ours ──> check ── another inode at the path, or none ──> open
 *                   ├─ same inode, another user's left-over ──> discard ──> open
 *                   └─ same inode ──> held: write the record
 *   held ── shared ──> convert to LOCK_EX ── EAGAIN: other readers hold it ──> unlock
 *     │                  └─ ours: the last reader ─┐
 *     ├─ exclusive ────────────────────────────────┴──> look ── not our inode ──> unlock
 *     │                                                   └─ our inode ──> unlink ──> unlock
 *     └─ keep ──> empty ──> unlock                                        unlock ──> close
 *   held ── wrapper killed ──> orphan: the command has the open file, and the lock ends with it
 *   held ── another program removed the file ──> look, lock (try), check ──> held, through both files: see `place.ts`
 *   held ── command killed ──> close ──> open ── absent, or another inode ──> done
 *                                           └─ same inode ──> lock ── EAGAIN ──> orphan, or a newcomer has it
 *                                                               └─ ours: no process had it ──> look, as above
 *
 * 1. open before create, create with O_EXCL: two creators cannot end up with two inodes, and O_CREAT on another user's
 *    file is refused in a sticky directory (`fs.protected_regular`).
 * 2. check after lock: the holder before us may have deleted the file between our open and our lock. Then our lock is of a
 *    file that no newcomer finds, and proves nothing. Only ENOENT means that the file is gone.
 * 3. only a holder writes, and only into a file of its own user. `discard` needs an exclusive lock: a reader is not alone.
 * 4. look and unlink before unlock: after the unlock the path may be another holder's. Only a sole holder may unlink.
 *    Implementations that never unlink leave a file for every name ever used; the check makes unlinking safe.
 * 5. unlock before close: the command, and what it left behind, share this open file, so close(2) alone keeps the lock.
 *    Where a killed command left its work behind, that is what is wanted.
 * 6. a waiter whose file was deleted keeps it locked until it has the next one, so that the waiters behind it wake one at
 *    a time and keep their order; it waits with the last one only. Before it waits for a file that is older, or whose age
 *    is not known, it closes that too: each process that waits with a file locked waits for a younger one, so there is no
 *    circle, also where a path changes back to a file that it named before.
 * 7. `status`, where /proc/locks does not help, takes a free lock for a moment (probe shared, probe exclusive): therefore
 *    a refusal by a momentary hold is retried (`patience.ts`). So does `wait`, where it was in the queue.
 * 8. `check` is for a file that the user named too: it may be replaced by rename while we wait.
 *
 * Not promised: that flock(2) serves waiters in order (Linux does); that no process gets in between the removal of a held
 * file by another program and the holder's next look; that a command which closes its descriptors keeps the lock after its
 * wrapper was killed; that a killed process has released its locks by the time that kill(2) returns.
 */
import { encodeRecord, type Holder, newRecord } from "../../holder.ts";
import { defaultDirectory } from "../../name.ts";
import * as files from "../../os/files.ts";
import { LOCK } from "../../os/flock.ts";
import type { Code } from "../../os/libc.ts";
import { closeAtThreadEnd } from "../../os/thread-end.ts";
import type { LockStatus, Place, Request, Store } from "../store.ts";
import { FileLease } from "./file-lease.ts";
import { takePlaceIn } from "./file-place.ts";
import { listDirectory, statusOf } from "./inspect.ts";
import {
  ATTEMPTS_MAX,
  absolute,
  closed,
  type FileStoreOptions,
  isStillAt,
  type LockFile,
  lockError,
  lockFileOf,
  type OpenFile,
  onlyLastBefore,
  openError,
  openGuarded,
  openIfPresent,
  openNamedFile,
  operation,
  readHolder,
  readRecord,
  reopenForLock,
  statusOfOpen,
  tryLock,
  unstableFileError,
} from "./lock-file.ts";
import { Patience, type Refused } from "./patience.ts";

/** A waiter keeps so many deleted files locked until it has tried the current one. */
const KEPT_MAX = 2;
/** A longer name is not recorded. */
const NAME_RECORDED_MAX = 4096;

/** Locks that live in files of one directory of this machine. */
export class FileStore implements Store {
  readonly dir: string;
  readonly #keep: boolean;
  /** The file that the user named. */
  readonly #named: LockFile | undefined;
  #last: { name: string; file: LockFile } | undefined;

  constructor({ dir, file, keep = false }: FileStoreOptions = {}) {
    this.#keep = keep;
    this.#named =
      file === undefined ? undefined : { path: absolute("file", file), fitsName: true, givenByUser: true };
    this.dir = absolute("dir", dir ?? defaultDirectory().path);
  }

  #fileOf(name: string): LockFile {
    if (this.#named !== undefined) return this.#named;
    if (this.#last?.name !== name) this.#last = { name, file: lockFileOf(name, this.dir) };
    return this.#last.file;
  }

  location(name: string): string {
    return this.#fileOf(name).path;
  }

  async tryAcquire(request: Request): Promise<FileLease | undefined> {
    const patience = new Patience();
    for (;;) {
      const found = this.#tryOnce(request);
      if (found instanceof FileLease) return found;
      const pause = patience.pause(found, request.mode);
      if (pause === undefined) return undefined;
      await Bun.sleep(pause);
    }
  }

  /**
   * Takes the lock if it is free; undefined when it is held.
   * @throws {LockFileError} when the file cannot be made, opened or locked, or is not a lock file
   */
  tryAcquireSync(request: Request): FileLease | undefined {
    const patience = new Patience();
    for (;;) {
      const found = this.#tryOnce(request);
      if (found instanceof FileLease) return found;
      const pause = patience.pause(found, request.mode);
      if (pause === undefined) return undefined;
      Bun.sleepSync(pause);
    }
  }

  #tryOnce(request: Request): FileLease | Refused {
    const file = this.#fileOf(request.name);
    for (let attempts = 0; attempts <= ATTEMPTS_MAX; attempts++) {
      const open = openGuarded(file);
      let lease: FileLease | undefined;
      try {
        const failure = tryLock(file, open, request.mode);
        if (failure === "EAGAIN")
          return { holder: file.givenByUser ? {} : readHolder(open.fd), file: open.status };
        lease = this.#accept(file, open, failure, request);
        if (lease !== undefined) return lease;
      } finally {
        if (lease === undefined) files.close(open.fd);
      }
    }
    throw unstableFileError(file.path);
  }

  /** Waits in the kernel's queue. Deleted files that it gets on its way stay locked, where rule 6 allows it. */
  async waitAcquire(request: Request, signal?: AbortSignal): Promise<FileLease> {
    return (await this.#wait(request, signal))!;
  }

  /** @see Store.waitBehind */
  waitBehind(request: Request, signal?: AbortSignal): Promise<FileLease | undefined> {
    return this.#wait(request, signal, (file) => readRecord(file.fd).record.command !== undefined);
  }

  /** @param over looks at a deleted file whose lock it got, and ends the wait without the lock */
  async #wait(
    request: Request,
    signal: AbortSignal | undefined,
    over: (file: OpenFile) => boolean = () => false,
  ): Promise<FileLease | undefined> {
    const file = this.#fileOf(request.name);
    const how = operation(request.mode);
    const { Waiter } = await import("../../os/flock-thread.ts");
    using waiter = new Waiter();
    let kept: OpenFile[] = [];
    let open: OpenFile | undefined;
    try {
      for (let attempts = 0; ; attempts++) {
        if (attempts > ATTEMPTS_MAX) throw unstableFileError(file.path);
        signal?.throwIfAborted();
        open = openGuarded(file);
        let failure = tryLock(file, open, request.mode);
        while (failure === "EAGAIN" || failure === "EINTR") {
          signal?.throwIfAborted();
          kept = onlyLastBefore(open, kept);
          failure = await waiter.flock(open.fd, how, signal);
        }
        const lease = this.#accept(file, open, failure, request);
        if (lease === undefined) {
          if (over(open)) {
            // Who waits for a file that we kept came before the run that has begun, too.
            const mark = encodeRecord({ ...newRecord(request), command: process.pid });
            for (const { fd, writable } of kept) if (writable) files.pwrite(fd, mark);
            return undefined;
          }
          kept.push(open);
          open = undefined;
          if (kept.length > KEPT_MAX) closed(kept.shift());
          continue;
        }
        open = undefined;
        if (!signal?.aborted) return lease;
        lease.releaseSync(); // with its file, which we may have made
      }
    } finally {
      kept.forEach(closed);
      closed(open);
    }
  }

  takePlace(name: string, started: number, signal?: AbortSignal): Promise<Place> {
    return takePlaceIn(this, name, started, signal);
  }

  /**
   * Waits in the kernel's queue until the lock is free, shared or not. flock(2) cannot wait without acquiring, so the
   * thread acquires and releases at once. A `tryAcquire` that fails in that moment retries, while one after the other
   * passes; the next in the queue is next. Makes no file: where there is none, the lock is free.
   */
  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    const file = this.#fileOf(name);
    const { path } = file;
    const { Waiter } = await import("../../os/flock-thread.ts");
    using waiter = new Waiter();
    for (let attempts = 0; ; ) {
      signal?.throwIfAborted();
      const { fd } = file.givenByUser ? openNamedFile(path) : openIfPresent(path);
      if (fd === "ENOENT") return;
      if (typeof fd === "string") throw openError(file, fd);
      closeAtThreadEnd(fd);
      const open: OpenFile = { fd, writable: false, status: statusOfOpen(fd, path) };
      try {
        let failure = await waiter.pass(fd, LOCK.EX, signal);
        if (failure === "EINTR") continue;
        if (failure !== undefined && reopenForLock(file, open, failure))
          failure = await waiter.pass(open.fd, LOCK.EX, signal);
        if (failure === "EINTR") continue;
        if (failure !== undefined) throw lockError(path, failure);
        if (isStillAt(file, open.status) !== "another") return;
        // A newcomer may hold the lock of the file that is there now.
        if (++attempts > ATTEMPTS_MAX) throw unstableFileError(path);
      } finally {
        files.close(open.fd);
      }
    }
  }

  /**
   * The holder of a lock that was refused, as far as can be told: the process that the record names, if it lives; otherwise,
   * which takes longer, the one that the kernel names.
   */
  holderSync(name: string): Holder | undefined {
    const file = this.#fileOf(name);
    const { fd } = file.givenByUser ? { fd: undefined } : openIfPresent(file.path);
    if (typeof fd === "number") {
      const holder = readHolder(fd);
      files.close(fd);
      if (holder.alive) return holder;
    }
    try {
      return statusOf(file, name).holder;
    } catch {
      return undefined; // a refusal stays one where the file cannot be looked at
    }
  }

  async status(name: string): Promise<LockStatus> {
    return statusOf(this.#fileOf(name), name);
  }

  async list(): Promise<LockStatus[]> {
    return listDirectory(this.dir);
  }

  async close(): Promise<void> {}

  /** Turns a lock on an open file into a lease, if that proves anything (rule 2); undefined where we must start again. */
  #accept(
    file: LockFile,
    open: OpenFile,
    failure: Code | undefined,
    request: Request,
  ): FileLease | undefined {
    const { path, fitsName, givenByUser } = file;
    if (failure !== undefined) throw lockError(path, failure);
    const leaving = { mode: request.mode, keep: this.#keep };
    if (isStillAt(file, open.status) !== "same") return undefined;
    if (givenByUser) return new FileLease(file, open, leaving, undefined);
    // Another user's left-over, which we do not write into. Where we may, we delete it and make a file of our own.
    const discards = !open.writable && request.mode === "exclusive" && !this.#keep;
    if (discards && files.unlink(path) === undefined) return undefined;
    const record = open.writable ? newRecord(request) : undefined;
    if (record && !fitsName && request.name.length <= NAME_RECORDED_MAX) record.name = request.name;
    return new FileLease(file, open, leaving, record);
  }
}
