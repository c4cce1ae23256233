/**
 * Keeps the file of a held lock at its path. The rules of taking a lock are in `file-store.ts`.
 *
 *   held ── the file's times are old ──> touch: a cleaner goes by them
 *     └─ look ── our inode ──> held
 *                └─ none, or another ──> open or create, lock (try), check
 *                     ├─ ours ──> retaken: both files are held, a newcomer finds the one at the path
 *                     └─ EAGAIN, or no file can be made ──> split: look again a second later
 *
 * 1. The first file stays locked: the command has inherited it, and waiters are queued on it.
 * 2. The new file is only tried, never waited for. A process that holds one file and waits for a newer one would close a
 *    circle.
 * 3. A removed file has no link left, so that it cannot be linked again: link(2). The command never gets the new one. A
 *    process that waits for the removed one has it, up to the end of the last process of the command: `keepWhileHeld`.
 */
import { encodeRecord, type HolderRecord, holderByRecord, type Mode } from "../../holder.ts";
import * as files from "../../os/files.ts";
import { flock, LOCK } from "../../os/flock.ts";
import type { PlaceChange } from "../store.ts";
import { FILE_MODE, isStillAt, type LockFile, type OpenFile, openFile, readRecord } from "./lock-file.ts";
import { removedHolders } from "./removed.ts";

/** Pause between two looks, in milliseconds. */
export const LOOK_MS = 1000;

/** Cleaners that go by times have ages of hours and more. */
const TOUCH_MS = 10 * 60_000;

export class LockPlace {
  #current: OpenFile;
  #looked = performance.now();
  #touched = performance.now();
  #isSplit = false;
  #rivalsSought = false;

  constructor(
    private readonly file: LockFile,
    private readonly first: OpenFile,
    private readonly mode: Mode,
    private readonly record: HolderRecord | undefined,
  ) {
    this.#current = first;
  }

  /** The file that newcomers find, as far as it is ours. */
  get current(): OpenFile {
    return this.#current;
  }

  /**
   * Looks whether the file is still there, once a second however often it is called.
   * @returns what has changed for the lock
   */
  look(): PlaceChange | undefined {
    const now = performance.now();
    if (now < this.#looked + LOOK_MS) return undefined;
    this.#looked = now;
    if (!this.#isThere()) return this.#retake();
    if (now >= this.#touched + TOUCH_MS) {
      this.#touched = now;
      this.#touch();
    }
    return this.#seekRivals();
  }

  /** Closes what was opened here, with its lock. */
  close(): void {
    if (this.#current !== this.first) files.close(this.#current.fd);
  }

  #isThere(): boolean {
    try {
      return isStillAt(this.file, this.#current.status) === "same";
    } catch {
      return true; // it cannot be seen: that does not mean that it is gone
    }
  }

  #touch(): void {
    const { fd } = this.#current;
    if (this.record === undefined || files.touch(fd) !== undefined) files.pread(fd, 1); // reading sets one of the times
  }

  #retake(): PlaceChange | undefined {
    let open: OpenFile | undefined;
    try {
      open = openFile(this.file);
      const failure = flock(open.fd, (this.mode === "shared" ? LOCK.SH : LOCK.EX) | LOCK.NB);
      if (failure === "EAGAIN") return this.#split({ holder: holderByRecord(readRecord(open.fd)) });
      if (failure !== undefined) return this.#split({ reason: failure });
      if (isStillAt(this.file, open.status) !== "same") return undefined; // it was just removed: at the next look
      this.close();
      this.#current = open;
      open = undefined;
    } catch (error) {
      return this.#split({ reason: (error as Error).message });
    } finally {
      if (open !== undefined) files.close(open.fd);
    }
    this.#isSplit = false;
    const { fd, writable } = this.#current;
    if (this.record !== undefined && writable) {
      files.pwrite(fd, encodeRecord(this.record));
      files.fchmod(fd, FILE_MODE);
    }
    return { event: "retaken", lockfile: this.file.path };
  }

  /** Said once. */
  #split(details: Partial<PlaceChange>): PlaceChange | undefined {
    if (this.#isSplit) return undefined;
    this.#isSplit = true;
    return { event: "split", lockfile: this.file.path, ...details };
  }

  /** A holder whose file was removed before we came. Sought once, as later ones find ours. */
  #seekRivals(): PlaceChange | undefined {
    if (this.#rivalsSought) return undefined;
    this.#rivalsSought = true;
    const [holder] = removedHolders(this.file.path);
    return holder && this.#split({ holder });
  }
}
