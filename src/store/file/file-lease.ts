/** A lock that is held through an open file: its record, and how it is given back. The rules are in `file-store.ts`. */
import { encodeRecord, type HolderRecord, type Mode } from "../../holder.ts";
import type { FileStatus } from "../../os/files.ts";
import * as files from "../../os/files.ts";
import { flock, LOCK } from "../../os/flock.ts";
import type { Code } from "../../os/libc.ts";
import type { Lease } from "../store.ts";
import type { LockFile, OpenFile } from "./lock-file.ts";

/** What a lease does with its file on release. */
interface Leaving {
  mode: Mode;
  /** Left in place, emptied. */
  keep: boolean;
}

/** A lock held through an open file. */
export class FileLease implements Lease {
  #released = false;
  #fd: number;
  readonly #status: FileStatus;

  constructor(
    private readonly file: LockFile,
    { fd, status }: OpenFile,
    private readonly leaving: Leaving,
    /** The record in the file; undefined where the file is not ours to write. */
    private readonly record: HolderRecord | undefined,
  ) {
    this.#fd = fd;
    this.#status = status;
    // A truncated record, or that of an earlier holder, must not stay.
    if (this.#write() !== undefined) this.#empty();
  }

  get location(): string {
    return this.file.path;
  }

  /** The descriptor that holds the lock, until it is released. */
  get fd(): number {
    return this.#fd;
  }

  /** Takes over the descriptor's new number, after it was duplicated and the old one closed. */
  moveTo(fd: number): void {
    this.#fd = fd;
  }

  /** Adds the wrapped command's pid to the record. */
  recordCommand(pid: number): void {
    if (this.record === undefined) return;
    this.record.command = pid;
    this.#write();
  }

  /** Gives the lock back: look, unlink, unlock, close. No failure of the file keeps the lock. */
  releaseSync(): void {
    if (this.#released) return;
    this.#released = true;
    try {
      if (!this.file.givenByUser) this.#leaveFile();
    } finally {
      flock(this.#fd, LOCK.UN);
      files.close(this.#fd);
    }
  }

  async release(): Promise<void> {
    this.releaseSync();
  }

  #leaveFile(): void {
    // The last of many readers removes the file: only it can convert its lock. flock(2) converts by giving the lock up
    // first, which is no loss to a reader that leaves.
    if (this.leaving.mode === "shared" && flock(this.#fd, LOCK.EX | LOCK.NB) !== undefined) return;
    const now = files.lstat(this.file.path);
    if (typeof now === "string" || !files.sameFile(now, this.#status)) return;
    // A file that we may not delete stays, and serves the next holder as well: but it must not name us.
    if (this.leaving.keep || files.unlink(this.file.path) !== undefined) this.#empty();
  }

  /**
   * Writes the record. A full or failing disk costs us the record, not the lock. The old content is cut off afterwards: no
   * reader finds an empty file, and ext4 flushes a file that was emptied and written as soon as it is closed. Among readers
   * of a shared lock it is not cut, as it may be another reader's longer record by now; only the first two lines are read.
   */
  #write(): Code | undefined {
    if (this.record === undefined) return undefined;
    const bytes = encodeRecord(this.record);
    const failure = files.pwrite(this.#fd, bytes);
    if (failure !== undefined || this.leaving.mode === "shared") return failure;
    return files.ftruncate(this.#fd, bytes.length);
  }

  #empty(): void {
    if (this.record !== undefined) files.ftruncate(this.#fd, 0);
  }
}
