/** A lock that can be broken on purpose: what the torture must find. */
import * as kernel from "../../src/os/files.ts";
import { flock, LOCK } from "../../src/os/flock.ts";

const { O } = kernel;

export const FAULTS = ["none", "no flock", "no inode check", "unlink after unlock"] as const;
export type Fault = (typeof FAULTS)[number];

/** The protocol of the lock file in its shortest form, with one fault and a pause between its calls. */
export class FaultyLock {
  constructor(
    readonly path: string,
    readonly fault: Fault,
    /** Called between two steps: widens the races. */
    readonly pause: () => void,
  ) {}

  /** Takes the lock, and returns its release; undefined when it is held. */
  tryAcquire(): (() => void) | undefined {
    for (;;) {
      let fd = kernel.open(this.path, O.RDWR);
      if (fd === "ENOENT") fd = kernel.open(this.path, O.RDWR | O.CREAT | O.EXCL);
      if (fd === "EEXIST") continue;
      if (typeof fd === "string") throw new Error(fd);
      const held = fd;
      this.pause();
      if (this.fault !== "no flock" && flock(held, LOCK.EX | LOCK.NB) !== undefined) {
        kernel.close(held);
        return undefined;
      }
      this.pause();
      if (this.fault !== "no inode check" && !this.#isAtPath(held)) {
        kernel.close(held);
        continue;
      }
      return () => this.#release(held);
    }
  }

  #isAtPath(fd: number): boolean {
    const mine = kernel.fstat(fd);
    const there = kernel.lstat(this.path);
    return typeof mine !== "string" && typeof there !== "string" && kernel.sameFile(mine, there);
  }

  #release(fd: number): void {
    if (this.fault === "unlink after unlock") {
      flock(fd, LOCK.UN);
      this.pause();
    }
    if (this.fault === "unlink after unlock" || this.#isAtPath(fd)) kernel.unlink(this.path);
    this.pause();
    kernel.close(fd);
  }
}
