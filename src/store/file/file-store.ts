/** The embedded default: one file per lock, locked by the kernel. */
import {
  encodeRecord,
  type Holder,
  type HolderRecord,
  holderByRecord,
  type Mode,
  newRecord,
  parseLockFile,
  type WrittenRecord,
} from "../../holder.ts";
import { defaultDirectory, fileName, nameFits } from "../../name.ts";
import * as kernel from "../../os/libc.ts";
import type { Lease, LockStatus, Request, Store } from "../store.ts";
import { listDirectory, statusOf } from "./inspect.ts";
import {
  isStillAt,
  lockError,
  type OpenFile,
  OTHER_FILES_MAX,
  ofChangingFile,
  openError,
  openExisting,
  openFile,
  openPresent,
  statusOfOpen,
} from "./lock-file.ts";

const { E, LOCK } = kernel;

/** A record is a few hundred bytes and a label; of a longer file no more is read. */
const RECORD_MAX = 65536;

/** A longer name is not recorded. */
const NAME_RECORDED_MAX = 4096;

/** So often is looked again where a lock may be held for a moment only: in all, 31 ms and a second. See `looksFor`. */
const LOOKS = 5;
const LOOKS_AMONG_READERS = 65;
/** The pause before each look is twice the last one, but not longer than this, in milliseconds. */
const PAUSE_MAX = 16;

export interface FileStoreOptions {
  /** Directory of the lock files. Default: see `defaultDirectory`. */
  dir?: string | undefined;
  /** Leave the lock file in place on release, emptied. */
  keep?: boolean | undefined;
  /** Lock this existing file or directory as it is, instead of one named after the lock. */
  file?: string | undefined;
}

/** What becomes of a lock file when its holder leaves. */
interface Leaving {
  mode: Mode;
  /** Left in place, emptied. */
  keep: boolean;
  /** It is not a lock file of ours: never written, never deleted. */
  named: boolean;
}

/** A lock held through an open file. */
export class FileLease implements Lease {
  #released = false;
  #fd: number;

  constructor(
    readonly place: string,
    fd: number,
    private readonly identity: kernel.FileStatus,
    private readonly leaving: Leaving,
    /** What the file says of us; undefined where it is not ours to write. */
    private readonly record: HolderRecord | undefined,
  ) {
    this.#fd = fd;
    if (this.#write() < 0) this.#empty(); // of a record cut short, or that of somebody before us, nothing stays
  }

  /** The descriptor that holds the lock, until it is released. */
  get fd(): number {
    return this.#fd;
  }

  /** Records that the caller has moved the open file to another descriptor. */
  moveTo(fd: number): void {
    this.#fd = fd;
  }

  /** Adds the wrapped command's pid to the record. */
  recordCommand(pid: number): void {
    if (this.record === undefined) return;
    this.record.command = pid;
    this.#write();
  }

  /**
   * Gives the lock back: while still holding, removes the path if it is still our file; then unlocks; then
   * closes. Unlocking is said aloud (close would do for us alone) because a command that we started, and
   * whatever it left behind, has the same open file. Nothing that goes wrong with the file keeps the lock.
   */
  releaseSync(): void {
    if (this.#released) return;
    this.#released = true;
    try {
      if (!this.leaving.named) this.#leaveFile();
    } finally {
      kernel.flock(this.#fd, LOCK.UN);
      kernel.close(this.#fd);
    }
  }

  async release(): Promise<void> {
    this.releaseSync();
  }

  #leaveFile(): void {
    // The last of many readers removes the file: only it gets the lock for itself. To ask converts our lock,
    // which flock(2) does by giving it up first; that is no loss, as we are leaving.
    if (this.leaving.mode === "shared" && kernel.flock(this.#fd, LOCK.EX | LOCK.NB) < 0) return;
    const now = kernel.lstat(this.place);
    if (typeof now === "number" || !kernel.sameFile(now, this.identity)) return;
    // A file that we may not delete stays, and is as good for the next holder: but it must not name us.
    if (this.leaving.keep || kernel.unlink(this.place) < 0) this.#empty();
  }

  /**
   * Writes the record. A full disk, or a disk that fails, costs us the record, not the lock. What was there is cut
   * off afterwards, so that no reader finds an empty file, and because ext4 puts a file that was emptied and written
   * on the disk as soon as it is closed; among readers of a shared lock not at all, as it may by
   * now be another's longer record (a reader looks at the first two lines only).
   */
  #write(): number {
    if (this.record === undefined) return 0;
    const bytes = encodeRecord(this.record);
    const written = kernel.pwrite(this.#fd, bytes);
    return written < 0 || this.leaving.mode === "shared" ? written : kernel.ftruncate(this.#fd, bytes.length);
  }

  #empty(): void {
    if (this.record !== undefined) kernel.ftruncate(this.#fd, 0);
  }
}

/** Locks that live in files of one directory of this machine. */
export class FileStore implements Store {
  readonly #options: FileStoreOptions;
  readonly dir: string;

  constructor(options: FileStoreOptions = {}) {
    const { dir, file } = options;
    this.#options = { ...options, file: file && absolute(file) };
    this.dir = absolute(dir ?? defaultDirectory());
  }

  place(name: string): string {
    if (this.#options.file !== undefined) return this.#options.file;
    return `${this.dir.replace(/\/+$/, "")}/${fileName(name)}`;
  }

  async tryAcquire(request: Request): Promise<FileLease | undefined> {
    for (let looks = 0; ; looks++) {
      const found = this.#tryOnce(request);
      if (found instanceof FileLease) return found;
      if (looks >= found) return undefined;
      await Bun.sleep(pauseBefore(looks));
    }
  }

  /**
   * Takes the lock if it is free; undefined when it is held.
   * @throws {LockFileError} when the file cannot be made, opened or locked, or is none of ours
   */
  tryAcquireSync(request: Request): FileLease | undefined {
    for (let looks = 0; ; looks++) {
      const found = this.#tryOnce(request);
      if (found instanceof FileLease) return found;
      if (looks >= found) return undefined;
      Bun.sleepSync(pauseBefore(looks));
    }
  }

  /** @returns what was taken; where the lock is held, how often to look again before that is believed */
  #tryOnce(request: Request): FileLease | number {
    const path = this.place(request.name);
    const named = this.#options.file !== undefined;
    for (let others = 0; others <= OTHER_FILES_MAX; others++) {
      const file = openFile(path, named);
      let lease: FileLease | undefined;
      try {
        const locked = kernel.flock(file.fd, operation(request.mode) | LOCK.NB);
        if (locked === -E.EAGAIN) return looksFor(named ? {} : readHolder(file.fd), request.mode);
        lease = this.#accept(file, locked, path, request);
        if (lease !== undefined) return lease;
      } finally {
        if (lease === undefined) kernel.close(file.fd);
      }
    }
    throw ofChangingFile(path);
  }

  /**
   * Waits in the kernel's queue.
   *
   * The holder deletes the file as it leaves, so the first in the queue gets the lock of a file that is no
   * more, and must go on to the file that is there now. It keeps the old one locked until it has the new one:
   * so the others stay behind it, in their order, instead of all running to the new file at once. A process
   * holds older files and waits for a newer one, never the other way round, so nobody waits in a circle.
   */
  async waitAcquire(request: Request, signal?: AbortSignal): Promise<FileLease> {
    const path = this.place(request.name);
    const how = operation(request.mode);
    const { Waiter } = await import("../../os/flock-thread.ts");
    using waiter = new Waiter();
    const open: number[] = []; // the newest file last
    try {
      for (let others = 0; ; others++) {
        if (others > OTHER_FILES_MAX) throw ofChangingFile(path);
        signal?.throwIfAborted();
        const file = openFile(path, this.#options.file !== undefined);
        open.push(file.fd);
        let locked = kernel.flock(file.fd, how | LOCK.NB);
        while (locked === -E.EAGAIN || locked === -E.EINTR) {
          signal?.throwIfAborted();
          locked = await waiter.flock(file.fd, how, signal);
        }
        const lease = this.#accept(file, locked, path, request);
        if (lease === undefined) continue;
        open.pop();
        if (!signal?.aborted) return lease;
        lease.releaseSync(); // with its file, which we may have made
      }
    } finally {
      for (const fd of open) kernel.close(fd);
    }
  }

  /**
   * Waits in the kernel's queue until nobody holds the lock, shared or not, and lets go in the same moment: the
   * kernel has no way to wait without getting it. Who tries to take it just then looks again, see `tryAcquireSync`;
   * who waits in the queue is next. No file is made, and none is needed: where there is none, nobody holds the lock.
   */
  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    const path = this.place(name);
    const named = this.#options.file !== undefined;
    const { Waiter } = await import("../../os/flock-thread.ts");
    using waiter = new Waiter();
    for (let others = 0; ; ) {
      signal?.throwIfAborted();
      const { fd } = named ? openExisting(path) : openPresent(path);
      if (fd === -E.ENOENT) return;
      if (fd < 0) throw openError(path, -fd, named);
      try {
        const locked = await waiter.flock(fd, LOCK.EX, signal);
        if (locked === -E.EINTR) continue;
        if (locked < 0) throw lockError(path, -locked);
        if (named || isStillAt(path, statusOfOpen(fd, path)) !== "another") return;
        // Somebody has the lock of the file that is there now.
        if (++others > OTHER_FILES_MAX) throw ofChangingFile(path);
      } finally {
        kernel.close(fd);
      }
    }
  }

  /**
   * Who holds a lock that was not to be had, as far as can be told: the process that its record names, if it lives;
   * else, which takes longer, whom the kernel names.
   */
  holderSync(name: string): Holder | undefined {
    const named = this.#options.file !== undefined;
    const { fd } = named ? { fd: -1 } : openPresent(this.place(name));
    if (fd >= 0) {
      const holder = readHolder(fd);
      kernel.close(fd);
      if (holder.alive) return holder;
    }
    try {
      return statusOf(this.place(name), name, named).holder;
    } catch {
      return undefined; // a refusal stays one where the file cannot be looked at
    }
  }

  async status(name: string): Promise<LockStatus> {
    return statusOf(this.place(name), name, this.#options.file !== undefined);
  }

  async list(): Promise<LockStatus[]> {
    return listDirectory(this.dir);
  }

  async close(): Promise<void> {}

  /**
   * The lock on this open file was asked for with this result: are we the holder? Only if the file is still
   * the one at the path; if not, it was deleted between our open and our lock, and somebody else may hold
   * the lock of the file that is there now. Only a holder writes.
   */
  #accept(file: OpenFile, result: number, path: string, request: Request): FileLease | undefined {
    if (result < 0) throw lockError(path, -result);
    const { mode } = request;
    const leaving = { mode, keep: this.#options.keep ?? false, named: this.#options.file !== undefined };
    if (leaving.named) return new FileLease(path, file.fd, file.status, leaving, undefined);
    if (isStillAt(path, file.status) !== "same") return undefined;
    // Left behind by a process of another user, whose file we do not write into. Where we may, we delete it and start
    // again with a file of our own: not with a shared lock, as only he who is alone may delete.
    if (!file.ours && mode === "exclusive" && !leaving.keep && kernel.unlink(path) === 0) return undefined;
    const record = file.ours ? newRecord(request) : undefined;
    if (record && !nameFits(request.name) && request.name.length <= NAME_RECORDED_MAX)
      record.name = request.name;
    return new FileLease(path, file.fd, file.status, leaving, record);
  }
}

/** A path that means the same after a change of directory. */
function absolute(path: string): string {
  if (path.startsWith("/")) return path;
  return (require("node:path") as typeof import("node:path")).resolve(path);
}

/**
 * How often to look again before a lock is believed to be held. `status` looks at a lock by taking it for a moment where
 * the OS has no better answer; a process that is being killed needs a moment to be gone; one that has just got the lock
 * has not written its record. A reader that leaves takes the lock for itself to see whether it is the last one, and
 * where readers come and go another one does so at the next look.
 */
function looksFor(holder: Holder, wanted: Mode): number {
  if (wanted === "shared" && holder.mode === "shared") return LOOKS_AMONG_READERS;
  return holder.pid === undefined || holder.alive === false ? LOOKS : 0;
}

const pauseBefore = (looks: number): number => Math.min(2 ** looks, PAUSE_MAX);

const operation = (mode: Mode): number => (mode === "shared" ? LOCK.SH : LOCK.EX);

/** What stands in an open lock file, as far as it can be read. */
export function readRecord(fd: number): WrittenRecord {
  const bytes = kernel.pread(fd, RECORD_MAX);
  return typeof bytes === "number" ? { record: {} } : parseLockFile(new TextDecoder().decode(bytes));
}

const readHolder = (fd: number): Holder => holderByRecord(readRecord(fd));
