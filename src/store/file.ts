/** The embedded default: one file per lock, locked by the kernel. */
import { LockFileError, printable } from "../errors.ts";
import {
  encodeRecord,
  type Holder,
  type HolderRecord,
  holderByRecord,
  type Mode,
  newRecord,
  parseLockFile,
  type WrittenRecord,
} from "../holder.ts";
import { defaultDirectory, fileName, nameFits } from "../name.ts";
import * as kernel from "./kernel.ts";
import type { Lease, LockStatus, Request, Store } from "./store.ts";

const { O, E, LOCK } = kernel;

/** Never through a symbolic link, never into a program that we start, never waiting for a FIFO's other end. */
const SAFE = O.NOFOLLOW | O.CLOEXEC | O.NONBLOCK;

/** A record is a few hundred bytes and a label; of a longer file no more is read. */
const RECORD_MAX = 65536;

/** A longer name is not recorded. */
const NAME_RECORDED_MAX = 4096;

/** Holders that died in the same moment, or that have not written their record yet, get this long to be gone. */
const SECOND_LOOKS = 5;
const SECOND_LOOK_MS = 2;

export interface FileStoreOptions {
  /** Directory of the lock files. Default: see `defaultDirectory`. */
  dir?: string | undefined;
  /** Leave the lock file in place on release, emptied. */
  keep?: boolean | undefined;
  /** Lock this existing file or directory as it is, instead of one named after the lock. */
  file?: string | undefined;
}

/** A lock held through an open file. */
export class FileLease implements Lease {
  #released = false;

  constructor(
    readonly place: string,
    /** The descriptor that holds the lock, until it is released. */
    public fd: number,
    private readonly identity: kernel.FileStatus,
    private readonly options: FileStoreOptions,
    private record: HolderRecord | undefined,
  ) {}

  /** Adds the wrapped command's pid to the record. */
  recordCommand(pid: number): void {
    if (this.record === undefined) return;
    this.record.command = pid;
    kernel.pwrite(this.fd, encodeRecord(this.record));
  }

  /**
   * Gives the lock back: while still holding, removes the path if it is still our file; then unlocks; then
   * closes. Unlocking is said aloud (close would do for us alone) because a command that we started, and
   * whatever it left behind, has the same open file.
   */
  releaseSync(): void {
    if (this.#released) return;
    this.#released = true;
    if (this.record !== undefined) this.#leaveFile(this.record.mode);
    kernel.flock(this.fd, LOCK.UN);
    kernel.close(this.fd);
  }

  #leaveFile(mode: Mode): void {
    // The last of many readers removes the file: only it gets the lock for itself. To ask converts our lock,
    // which flock(2) does by giving it up first; that is no loss, as we are leaving.
    if (mode === "shared" && kernel.flock(this.fd, LOCK.EX | LOCK.NB) < 0) return;
    if (this.options.keep) {
      kernel.ftruncate(this.fd, 0);
      return;
    }
    const now = kernel.lstat(this.place);
    if (typeof now !== "number" && kernel.sameFile(now, this.identity)) kernel.unlink(this.place);
  }

  async release(): Promise<void> {
    this.releaseSync();
  }
}

/** Locks that live in files of one directory of this machine. */
export class FileStore implements Store {
  readonly #options: FileStoreOptions;
  readonly dir: string;

  constructor(options: FileStoreOptions = {}) {
    this.#options = options;
    this.dir = options.dir ?? defaultDirectory();
  }

  place(name: string): string {
    if (this.#options.file !== undefined) return this.#options.file;
    return `${this.dir === "/" ? "" : this.dir.replace(/(?<=.)\/+$/, "")}/${fileName(name)}`;
  }

  async tryAcquire(request: Request): Promise<FileLease | undefined> {
    return this.tryAcquireSync(request);
  }

  /**
   * Takes the lock if it is free; undefined when it is held.
   * @throws {LockFileError} when the file cannot be made, opened or locked, or is none of ours
   */
  tryAcquireSync(request: Request): FileLease | undefined {
    const path = this.place(request.name);
    for (let look = 0; ; ) {
      const file = this.#open(path);
      const locked = kernel.flock(file.fd, operation(request.mode) | LOCK.NB);
      if (locked === -E.EAGAIN) {
        // `status` looks at a lock by taking it for a moment where the OS has no better answer, and a process
        // that is being killed needs a moment to be gone. A holder whose record stands is believed at once.
        const holder = look < SECOND_LOOKS ? readHolder(file.fd) : undefined;
        kernel.close(file.fd);
        if (look++ >= SECOND_LOOKS || (holder?.pid !== undefined && holder.alive !== false)) return undefined;
        Bun.sleepSync(SECOND_LOOK_MS);
        continue;
      }
      let lease: FileLease | undefined;
      try {
        lease = this.#accept(file, locked, path, request);
        if (lease !== undefined) return lease;
      } finally {
        if (lease === undefined) kernel.close(file.fd);
      }
    }
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
    const { Waiter } = await import("./waiter.ts");
    using waiter = new Waiter();
    const open: number[] = []; // the newest file last
    try {
      for (;;) {
        signal?.throwIfAborted();
        const file = this.#open(path);
        open.push(file.fd);
        let locked = kernel.flock(file.fd, how | LOCK.NB);
        while (locked === -E.EAGAIN || locked === -E.EINTR) {
          signal?.throwIfAborted();
          locked = await waiter.flock(file.fd, how, signal);
        }
        const lease = this.#accept(file, locked, path, request);
        if (lease === undefined) {
          while (open.length > 1) kernel.close(open.shift()!);
          continue;
        }
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
    const { Waiter } = await import("./waiter.ts");
    using waiter = new Waiter();
    for (;;) {
      signal?.throwIfAborted();
      const { fd } = named ? openExisting(path) : openPresent(path);
      if (fd === -E.ENOENT) return;
      if (fd < 0) throw openError(path, -fd, named);
      try {
        const locked = await waiter.flock(fd, LOCK.EX, signal);
        if (locked === -E.EINTR) continue;
        if (locked < 0) throw lockError(path, -locked);
        const ours = kernel.fstat(fd);
        const now = kernel.lstat(path);
        if (named || now === -E.ENOENT) return;
        // Another file is there now: somebody has the lock of that one.
        if (typeof now !== "number" && typeof ours !== "number" && kernel.sameFile(now, ours)) return;
      } finally {
        kernel.close(fd);
      }
    }
  }

  /** Who holds the lock by its record. */
  recordedHolder(name: string): Holder | undefined {
    const fd = kernel.open(this.place(name), O.RDONLY | SAFE);
    if (fd < 0) return undefined;
    const holder = readHolder(fd);
    kernel.close(fd);
    return holder;
  }

  async status(name: string): Promise<LockStatus> {
    const { statusOf } = await import("./inspect.ts");
    return statusOf(this.place(name), name, this.#options.file !== undefined);
  }

  async list(): Promise<LockStatus[]> {
    const { listDirectory } = await import("./inspect.ts");
    return listDirectory(this.dir);
  }

  async close(): Promise<void> {}

  /** Opens the lock's file, and makes it where it is absent. */
  #open(path: string): OpenFile {
    const found = this.#options.file !== undefined ? openExisting(path) : openLockFile(path);
    if (found.fd < 0) throw openError(path, -found.fd, this.#options.file !== undefined);
    const status = kernel.fstat(found.fd);
    const fault =
      typeof status === "number"
        ? kernel.errorText(-status)
        : this.#options.file === undefined && notOurs(status);
    if (typeof status !== "number" && !fault) return { ...found, status };
    kernel.close(found.fd);
    throw new LockFileError(`cannot lock ${printable(path)}: ${fault}`, "EINVAL", "fstat", path);
  }

  /**
   * The lock on this open file was asked for with this result: are we the holder? Only if the file is still
   * the one at the path; if not, it was deleted between our open and our lock, and somebody else may hold
   * the lock of the file that is there now. Only a holder writes.
   */
  #accept(file: OpenFile, result: number, path: string, request: Request): FileLease | undefined {
    if (result < 0) throw lockError(path, -result);
    if (this.#options.file !== undefined)
      return new FileLease(path, file.fd, file.status, this.#options, undefined);
    const now = kernel.lstat(path);
    if (typeof now === "number" || !kernel.sameFile(now, file.status)) return undefined;
    const record = newRecord(request);
    if (!nameFits(request.name) && request.name.length <= NAME_RECORDED_MAX) record.name = request.name;
    if (file.writable) {
      // Cut to its length afterwards: a file that was emptied and written, ext4 puts on the disk as soon as it is closed.
      const written = kernel.pwrite(file.fd, encodeRecord(record));
      kernel.ftruncate(file.fd, Math.max(0, written)); // a full disk costs us the record, not the lock
    }
    return new FileLease(path, file.fd, file.status, this.#options, record);
  }
}

interface OpenFile {
  fd: number;
  writable: boolean;
  status: kernel.FileStatus;
}

const operation = (mode: Mode): number => (mode === "shared" ? LOCK.SH : LOCK.EX);

/**
 * Opens without O_CREAT first: in a sticky directory Linux refuses O_CREAT on another user's file
 * (`fs.protected_regular`, proc_sys_fs(5)). Creates with O_EXCL: two makers must not get two files.
 */
function openLockFile(path: string): { fd: number; writable: boolean } {
  for (;;) {
    const found = openPresent(path);
    if (found.fd !== -E.ENOENT) return found;
    const made = kernel.open(path, O.RDWR | O.CREAT | O.EXCL | SAFE);
    if (made !== -E.EEXIST) return { fd: made, writable: true };
  }
}

function openPresent(path: string): { fd: number; writable: boolean } {
  const fd = kernel.open(path, O.RDWR | SAFE);
  // flock(2) asks for no more than an open file: one that is another user's can be locked without being written.
  if (fd !== -E.EACCES && fd !== -E.EROFS) return { fd, writable: true };
  return { fd: kernel.open(path, O.RDONLY | SAFE), writable: false };
}

/** A file or directory that the user named: followed through links as any path, never created, never written. */
function openExisting(path: string): { fd: number; writable: boolean } {
  return { fd: kernel.open(path, O.RDONLY | O.CLOEXEC | O.NONBLOCK), writable: false };
}

/** Why a file in the lock's place is not a lock file of ours. */
function notOurs(status: kernel.FileStatus): string | undefined {
  if (!status.regular)
    return "there is something in its place that is not a regular file; remove it or use another --dir";
  if (status.links > 1) return "the file in its place has other links; remove it or use another --dir";
  return undefined;
}

function openError(path: string, errno: number, named: boolean): LockFileError {
  const advice: Partial<Record<number, string>> = {
    [E.ENOENT]: named
      ? "--file takes a file or directory that exists"
      : "make the directory, or name another with --dir",
    [E.EACCES]: "name a directory that you may write with --dir or EXCLUSIVE_DIR",
    [E.EROFS]: "name a directory that can be written with --dir or EXCLUSIVE_DIR",
    [E.ELOOP]: "a symbolic link is in its place; remove it or use another --dir",
    [E.EISDIR]: "a directory is in its place; remove it or use another --dir",
    [E.ENAMETOOLONG]: "name a directory with a shorter path, without NUL bytes",
  };
  const hint = advice[errno];
  return new LockFileError(
    `cannot open ${printable(path)}: ${kernel.errorText(errno)}${hint ? ` (${hint})` : ""}`,
    kernel.errorName(errno),
    "open",
    path,
  );
}

function lockError(path: string, errno: number): LockFileError {
  return new LockFileError(
    `cannot lock ${printable(path)}: ${kernel.errorText(errno)} (does this file system have locks? try exclusive doctor)`,
    kernel.errorName(errno),
    "flock",
    path,
  );
}

/** What stands in an open lock file, as far as it can be read. */
export function readRecord(fd: number): WrittenRecord {
  const bytes = kernel.pread(fd, RECORD_MAX);
  return typeof bytes === "number" ? { record: {} } : parseLockFile(new TextDecoder().decode(bytes));
}

const readHolder = (fd: number): Holder => holderByRecord(readRecord(fd));
