/** A lock that is broken on purpose. The torture must find its faults. */
import * as kernel from "../../src/os/libc.ts";

const { O, E, LOCK } = kernel;

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
      if (fd === -E.ENOENT) fd = kernel.open(this.path, O.RDWR | O.CREAT | O.EXCL);
      if (fd === -E.EEXIST) continue;
      this.pause();
      if (this.fault !== "no flock" && kernel.flock(fd, LOCK.EX | LOCK.NB) < 0) {
        kernel.close(fd);
        return undefined;
      }
      this.pause();
      if (this.fault !== "no inode check" && !this.#isAtPath(fd)) {
        kernel.close(fd);
        continue;
      }
      return () => this.#release(fd);
    }
  }

  #isAtPath(fd: number): boolean {
    const mine = kernel.fstat(fd);
    const there = kernel.lstat(this.path);
    return typeof mine !== "number" && typeof there !== "number" && kernel.sameFile(mine, there);
  }

  #release(fd: number): void {
    if (this.fault === "unlink after unlock") {
      kernel.flock(fd, LOCK.UN);
      this.pause();
    }
    if (this.fault === "unlink after unlock" || this.#isAtPath(fd)) kernel.unlink(this.path);
    this.pause();
    kernel.close(fd);
  }
}
