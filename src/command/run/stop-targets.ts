/**
 * Which processes `stop` and `--if-held replace` end.
 *
 * A signal to a wrong process is worse than none, and anything can be written into a record, and an open file be passed to
 * any process (SCM_RIGHTS, unix(7)). So a process is signalled only if
 *
 * 1. the record names it, it started when the record says, the kernel shows the lock in it (on Linux), and the file that the
 *    record is in is its own user's, ours, or root's;
 * 2. it descends from such a process (process-tree.ts); or
 * 3. it has the same open file as such a process, or as one that is gone, it is not older, and it is of the same user.
 */
import { printable } from "../../errors.ts";
import type { Holder } from "../../holder.ts";
import * as files from "../../os/files.ts";
import { fileKey, holdingsOf, kernelLocks, openLocks } from "../../os/lock-table.ts";
import { ProcessHandle } from "../../os/process-handle.ts";
import { birthTime, parentOf, startedBefore, userIdOf } from "../../os/processes.ts";
import { removedFiles } from "../../os/removed-files.ts";
import type { LockStatus } from "../../store/store.ts";
import { StopRefused } from "../cli/exit-status.ts";
import { ProcessTree } from "./process-tree.ts";

/** What holds a lock: one process, and all that it has started to do its work. */
export class Target implements Disposable {
  readonly process: ProcessHandle;
  /** The command of a wrapper, which forwards signals to it. */
  readonly command: number | undefined;
  readonly tree: ProcessTree;
  /** Does it end by itself as soon as its command has ended? */
  readonly isWrapper: boolean;
  /** The files of the lock: the one at the path, and those that were removed from it. None in a store. */
  readonly #files: files.FileStatus[];
  /** The processes that took the lock by the open files that this target has. */
  readonly #takers: Set<number>;

  constructor(
    readonly lock: LockStatus,
    readonly holder: Holder,
    readonly pid: number,
  ) {
    this.process = new ProcessHandle(pid);
    this.#files = filesOf(lock.lockfile, pid);
    const ours = openLocks(pid)?.filter(({ inode }) => this.#isFile(inode)) ?? [];
    this.#takers = new Set(ours.map(({ takenBy }) => takenBy));
    const { commandPid } = holder;
    this.isWrapper = commandPid !== undefined && parentOf(commandPid) === pid;
    this.command = this.isWrapper ? commandPid : undefined;
    // A program that took the lock itself and passes it on to none of its children is more than work under the lock.
    const isCommand =
      !this.isWrapper && ours.some(({ takenBy, inheritable }) => takenBy !== pid || inheritable);
    const user = userIdOf(pid);
    const born = birthTime(pid);
    this.tree = new ProcessTree({
      wrapper: pid,
      descends: this.isWrapper || isCommand,
      command: this.command,
      heirs: () =>
        this.holdings().filter(
          (heir) =>
            userIdOf(heir) === user && born !== undefined && !startedBefore(birthTime(heir) ?? born, born),
        ),
    });
  }

  /** The processes that have an open file of this target, as far as the kernel names them to us. */
  holdings(): number[] {
    const all = this.#files.flatMap(({ ino }) => holdingsOf(ino));
    const holdings = all.filter(({ takenBy }) => this.#takers.has(takenBy));
    return [...new Set(holdings.map(({ pid }) => pid))];
  }

  /**
   * Closes our own descriptors of its open file, which we may have inherited: we would wait for ourselves.
   * @param isInside do we run under this lock?
   * @throws {StopRefused} if so in a store, whose lock stays as long as all that the command has started
   */
  closeOurs(isInside: boolean): void {
    if (this.#files.length === 0) {
      if (!isInside) return;
      throw new StopRefused(
        `'${printable(this.lock.name)}' is held by the caller of this command, which would wait for itself`,
      );
    }
    for (const { fd, inode, takenBy } of openLocks(process.pid) ?? [])
      if (this.#isFile(inode) && this.#takers.has(takenBy)) files.close(fd);
  }

  /** Does a process have its open file that the kernel does not name to us? */
  get isHeldUnseen(): boolean {
    const locks = kernelLocks();
    const pids = this.#files.flatMap((file) => locks.get(fileKey(file))?.pids ?? []);
    return pids.some((pid) => this.#takers.has(pid));
  }

  /** Does its process still have the lock on a file that was removed? */
  get holdsRemoved(): boolean {
    return removedFiles(this.lock.lockfile, this.pid).length > 0;
  }

  #isFile(inode: string): boolean {
    return this.#files.some(({ ino }) => inode === String(ino));
  }

  [Symbol.dispose](): void {
    this.process[Symbol.dispose]();
  }
}

/** @throws {StopRefused} when a holder is not proven */
export function targetsOf(lock: LockStatus): Target[] {
  const shown = printable(lock.name);
  if (lock.state === "unknown") throw new StopRefused(`no permission to tell which process holds '${shown}'`);
  if (lock.slots) return lock.slots.flatMap(targetsOf);
  const others = (lock.others ?? []).filter(({ alive }) => alive);
  const atPath = lock.state === "free" ? [] : [lock.holder ?? {}, ...others];
  return [...atPath, ...(lock.removed ?? [])].map((holder) => {
    const refuse = (why: string) => new StopRefused(`the holder of '${shown}' is not stopped: ${why}`);
    const { pid, alive, host, commandPid, left } = holder;
    // A holder without a host has no record: only the kernel names it. It is trusted as one of many readers of a lock
    // whose first reader has a record.
    if (pid !== undefined && alive && (host !== undefined || lock.holder?.host !== undefined)) {
      const why = whyNotProven(pid, lock.lockfile, left === true);
      if (why !== undefined) throw refuse(why);
      return new Target(lock, holder, pid);
    }
    // The kernel has confirmed that the command has the lock.
    if (
      alive === false &&
      commandPid !== undefined &&
      whyNotProven(commandPid, lock.lockfile, true) === undefined
    )
      return new Target(lock, holder, commandPid);
    throw refuse(whyNot(holder));
  });
}

/** The file at the path of a lock, and those that were removed from there and that this process has locked. */
function filesOf(path: string, pid: number): files.FileStatus[] {
  const now = files.lstat(path);
  return [...(typeof now === "string" ? [] : [now]), ...removedFiles(path, pid)];
}

/** @param inherited it does not write the record, but has the open file of the process that did */
function whyNotProven(pid: number, path: string, inherited: boolean): string | undefined {
  if (!path.startsWith("/")) return undefined; // in a store
  const all = filesOf(path, pid);
  const locks = openLocks(pid);
  const locked = all.find(({ ino }) => locks?.some(({ inode }) => inode === String(ino)));
  if (locks !== undefined && locked === undefined)
    return `the record names pid ${pid}, which does not have the lock`;
  const file = locked ?? all[0];
  if (file === undefined) return undefined; // its file went with it
  const user = userIdOf(pid);
  const trusted = inherited ? [] : [0, process.geteuid?.()];
  if (user === file.uid || trusted.includes(file.uid)) return undefined;
  return `pid ${pid} belongs to user ${user}, the lock file to user ${file.uid}`;
}

function whyNot({ pid, alive, host }: Holder): string {
  if (pid === undefined) return "its process is unknown";
  if (host === undefined)
    return `pid ${pid} has left no record in the lock file (kill ${pid} if it is the right process)`;
  if (alive === undefined)
    return `pid ${pid} of ${printable(host)} is on another host or in another pid namespace`;
  return `the process that took it is gone, and pid ${pid} may be in use by another process`;
}
