/** A lock that is held through an open file: its record, and how it is given back. The rules are in `file-store.ts`. */
import { encodeRecord, type HolderRecord, type Mode, untilAfter } from "../../holder.ts";
import { clock } from "../../os/clock.ts";
import * as files from "../../os/files.ts";
import { flock, LOCK } from "../../os/flock.ts";
import { reapKeeper, startKeeper } from "../../os/keeper.ts";
import type { Code } from "../../os/libc.ts";
import { holdingsOf } from "../../os/lock-table.ts";
import type { Lease, PlaceChange } from "../store.ts";
import {
  FILE_MODE,
  LEFT_MODE,
  type LockFile,
  type OpenFile,
  openIfPresent,
  openNamedFile,
  readRecord,
  statusOfOpen,
} from "./lock-file.ts";
import { LockPlace } from "./place.ts";

/** What a lease does with its file on release. */
interface Leaving {
  mode: Mode;
  /** Left in place, emptied. */
  keep: boolean;
}

/** A lock held through an open file. */
export class FileLease implements Lease {
  #released = false;
  #keepUntil = 0;
  readonly #place: LockPlace;

  constructor(
    private readonly file: LockFile,
    private readonly open: OpenFile,
    private readonly leaving: Leaving,
    /** The record in the file; undefined where the file is not ours to write. */
    private readonly record: HolderRecord | undefined,
  ) {
    this.#place = new LockPlace(file, open, leaving.mode, record);
    if (record !== undefined && open.status.mode !== FILE_MODE) files.fchmod(open.fd, FILE_MODE);
    // A truncated record, or that of an earlier holder, must not stay.
    if (this.#write() !== undefined) this.#empty();
  }

  get location(): string {
    return this.file.path;
  }

  /** The descriptor that holds the lock, until it is released. */
  get fd(): number {
    return this.open.fd;
  }

  /** Takes over the descriptor's new number, after it was duplicated and the old one closed. */
  moveTo(fd: number): void {
    this.open.fd = fd;
  }

  /** Keeps the lock's file at its path: to be called about once a second. */
  lookAfterFile(): PlaceChange | undefined {
    return this.#released || this.file.givenByUser ? undefined : this.#place.look();
  }

  /** Adds the wrapped command's pid to the record. */
  recordCommand(pid: number): void {
    if (this.record === undefined) return;
    this.record.command = pid;
    this.#write();
  }

  /** The open files that hold the lock: the one that was taken first, and the one at the path now. */
  get descriptors(): number[] {
    return [...new Set([this.open.fd, this.#place.current.fd])];
  }

  /**
   * Leaves the lock to a process that has its descriptors and does nothing else, and ends after so long; undefined: when it
   * is stopped.
   * @returns until when; or why there is no such process, and the lock is still ours
   */
  leaveToKeeper(
    milliseconds?: number,
  ): { until: string; pid: number; failure?: undefined } | { until?: undefined; failure: Code } {
    const { pid, failure } = startKeeper(this.descriptors, milliseconds && milliseconds / 1000);
    if (failure !== undefined) return { failure };
    const until = untilAfter(milliseconds);
    if (this.record !== undefined) this.record.until = until;
    this.recordCommand(pid);
    this.closeSync();
    return { until, pid };
  }

  /** From now on a release before this time, on `clock()`, leaves the lock to a keeper. */
  keepUntil(time: number): void {
    this.#keepUntil = time;
  }

  /** Gives the lock back: look, unlink, unlock, close. No failure of the file, or of a keeper's start, keeps the lock. */
  releaseSync(): void {
    if (this.#released) return;
    const left = this.#keepUntil - clock();
    if (left > 0) {
      const kept = this.leaveToKeeper(left);
      if (kept.failure === undefined) {
        reapKeeper(kept.pid, left);
        return;
      }
    }
    this.#released = true;
    try {
      if (!this.file.givenByUser) this.#leaveFile();
    } finally {
      for (const fd of this.descriptors) flock(fd, LOCK.UN);
      this.#place.close();
      files.close(this.open.fd);
    }
  }

  /**
   * Gives up our share of the lock and no more: closes our descriptor. The kernel keeps the lock up to the end of the last
   * process that inherited it.
   */
  closeSync(): void {
    if (this.#released) return;
    this.#released = true;
    this.#place.close();
    files.close(this.open.fd);
  }

  /**
   * After `closeSync`: takes the lock again if no process has it, to remove the file as `releaseSync` does.
   * @returns whether the lock was free, or another process has taken it at another file
   */
  clearSync(): boolean {
    const { path, givenByUser } = this.file;
    const { fd, access } = givenByUser ? openNamedFile(path) : openIfPresent(path);
    if (typeof fd === "string") return true;
    try {
      const status = statusOfOpen(fd, path);
      const isFirst = files.sameFile(status, this.open.status);
      if (!isFirst && !files.sameFile(status, this.#place.current.status)) return true;
      if (!isFirst && this.heirs().length > 0) return false; // they have the first file only
      if (flock(fd, LOCK.EX | LOCK.NB) !== undefined) return false;
      if (!givenByUser) this.#leaveFile({ fd, status, writable: access === "written" });
      flock(fd, LOCK.UN);
      return true;
    } finally {
      files.close(fd);
    }
  }

  /**
   * The processes that inherited the lock from this one and still have it, as far as the kernel names them to us.
   * @param among only these; by default every process is looked at
   */
  heirs(among?: readonly number[]): number[] {
    return this.#heirsOf(this.open, among);
  }

  /** Has a process below us the file that is at the path now, for those that inherited the first one? */
  isKept(among: readonly number[]): boolean {
    const { current } = this.#place;
    return current !== this.open && this.#heirsOf(current, among).length > 0;
  }

  #heirsOf({ status }: OpenFile, among?: readonly number[]): number[] {
    const ours = holdingsOf(status.ino, among).filter(({ takenBy }) => takenBy === process.pid);
    return [...new Set(ours.map(({ pid }) => pid))];
  }

  /** After `closeSync`: does the file still name this process as its holder? Among readers it names any of them. */
  isOursByRecord(): boolean {
    if (this.record === undefined || this.leaving.mode === "shared") return false;
    const { fd } = openIfPresent(this.file.path);
    if (typeof fd === "string") return false;
    const { pid } = readRecord(fd);
    files.close(fd);
    return pid === process.pid;
  }

  async release(): Promise<void> {
    this.releaseSync();
  }

  #leaveFile({ fd, status, writable } = this.#place.current): void {
    // The last of many readers removes the file: only it can convert its lock. flock(2) converts by giving the lock up
    // first, which is no loss to a reader that leaves.
    if (this.leaving.mode === "shared" && flock(fd, LOCK.EX | LOCK.NB) !== undefined) return;
    const now = files.lstat(this.file.path);
    if (typeof now === "string" || !files.sameFile(now, status)) return;
    // A file that we may not delete stays, and serves the next holder as well: but it must not name us.
    if (!this.leaving.keep && files.unlink(this.file.path) === undefined) return;
    if (this.record === undefined || !writable) return;
    files.ftruncate(fd, 0);
    files.fchmod(fd, LEFT_MODE);
  }

  /**
   * Writes the record. A full or failing disk costs us the record, not the lock. The old content is cut off afterwards: no
   * reader finds an empty file, and ext4 flushes a file that was emptied and written as soon as it is closed. Among readers
   * of a shared lock it is not cut, as it may be another reader's longer record by now; only the first two lines are read.
   */
  #write(): Code | undefined {
    if (this.record === undefined) return undefined;
    const bytes = encodeRecord(this.record);
    const { fd, writable } = this.#place.current;
    if (!writable) return undefined;
    const failure = files.pwrite(fd, bytes);
    if (failure !== undefined || this.leaving.mode === "shared") return failure;
    return files.ftruncate(fd, bytes.length);
  }

  #empty(): void {
    const { fd, writable } = this.#place.current;
    if (this.record !== undefined && writable) files.ftruncate(fd, 0);
  }
}
