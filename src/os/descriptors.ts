/** Descriptors that a command inherits, and where it finds the lock's. */
import { systemError } from "./errors.ts";
import { close, O, open, readDirectory, readlink, readText } from "./files.ts";
import { address, failureOf, libc, linux } from "./libc.ts";

const RLIMIT_NOFILE = linux ? 7 : 8;

const c = libc({
  getrlimit: { args: ["i32", "ptr"], returns: "i32" },
  dup2: { args: ["i32", "i32"], returns: "i32" },
});

const CLOSE_ON_EXEC = /^flags:\s+0?[2367]\d{6}$/m;

/**
 * Was this descriptor open when we were started? Bun has some of its own, and puts /dev/null in the place of a closed 0, 1
 * or 2: with close-on-exec, which no descriptor has that came through an execve(2). Known on Linux only.
 */
function wasInherited(fd: number, inherited: readonly number[]): boolean {
  if (fd > 2) return inherited.includes(fd);
  if (!linux) return fd >= 0;
  const info = readText(`/proc/self/fdinfo/${fd}`);
  return info !== undefined && !CLOSE_ON_EXEC.test(info);
}

/** Did the process that started us hand us this descriptor? */
export const isInherited = (fd: number): boolean => wasInherited(fd, inheritedDescriptors(-1));

/** The number that a file would get if another program, started in our place, opened it first: open(2). */
function lowestFree(inherited: readonly number[]): number {
  let fd = 0;
  while (wasInherited(fd, inherited)) fd++;
  return fd;
}

/** Descriptors from 3 on that we were started with, without `except` and those of Bun's event loop. */
export function inheritedDescriptors(except?: number): number[] {
  const names = readDirectory(linux ? "/proc/self/fd" : "/dev/fd");
  if (typeof names === "string") return [];
  const bunsOwn = new Set<number>();
  const found: number[] = [];
  for (const fd of names.map(Number)) {
    if (fd < 3 || fd === except) continue;
    const target = linux ? readlink(`/proc/self/fd/${fd}`) : "";
    if (target === undefined) continue; // the descriptor that listed the others
    if (target === "anon_inode:[eventpoll]") {
      const watched = readText(`/proc/self/fdinfo/${fd}`) ?? "";
      for (const [, number] of watched.matchAll(/^tfd:\s+(\d+)/gm)) bunsOwn.add(Number(number));
    } else {
      found.push(fd);
    }
  }
  return found.filter((fd) => !bunsOwn.has(fd));
}

/** dup2(2): the copy has no close-on-exec. */
export function duplicate(fd: number, to: number): void {
  c.dup2(fd, to);
}

/** Clears close-on-exec, which Bun sets on all that it inherits. */
function clearCloseOnExec(fds: readonly number[], spare: number): void {
  for (const fd of fds) {
    c.dup2(fd, spare);
    c.dup2(spare, fd);
  }
  if (fds.length > 0) close(spare);
}

/** Which descriptor holds the lock, and where the command finds it. */
export interface LockPlacement {
  /** The descriptor that holds the lock; -1 where the lock lives in a store. */
  lockFd: number;
  /** What the command inherits, found out before we opened files: by default it is found out now. */
  inherited?: readonly number[];
  /**
   * Where the command finds the lock. By default at the highest number that does not enlarge the table of descriptors.
   * `lowest`: where it would be if the command's parent had opened it and nothing else; `inherited`: at its number, which
   * we were started with; `closed`: nowhere.
   */
  lockAt?: "lowest" | "inherited" | "closed";
}

/** Where the lock's descriptor is now, in this process. */
export interface LockDescriptor {
  lockFd: number;
}

/** The largest number that a table of the default size has room for. */
const HIGHEST = 1023;

/**
 * Makes ready what the command inherits: call it last before the command starts. `target` is the lock's number there.
 * @throws {LockFileError} when the lock cannot be moved there: the command would run without it
 */
export function prepareDescriptors({
  lockFd,
  lockAt,
  inherited = inheritedDescriptors(lockFd),
}: LockPlacement): LockDescriptor & { inherited: readonly number[]; target: number | undefined } {
  const limits = new BigUint64Array(2);
  c.getrlimit(RLIMIT_NOFILE, address(limits));
  const soft = limits[0]!;
  let high = soft < HIGHEST + 1 ? Number(soft) - 1 : HIGHEST;
  const taken = (fd: number) => inherited.includes(fd) || fd === lockFd;
  while (taken(high) || taken(high - 1)) high--;
  const stays = lockAt === "inherited" || lockAt === "lowest" ? [lockFd] : [];
  clearCloseOnExec([...inherited, ...stays], high - 1);
  if (lockFd < 0) return { inherited, lockFd, target: lockFd };
  if (lockAt === "lowest") return { inherited, lockFd, target: lowestFree(inherited) };
  if (lockAt !== undefined) return { inherited, lockFd, target: lockAt === "closed" ? undefined : lockFd };
  const failure = failureOf(c.dup2(lockFd, high));
  if (failure !== undefined) throw systemError("dup2", "the command", failure, { doing: "hand the lock to" });
  close(lockFd);
  return { inherited, lockFd: high, target: high };
}

/** Closes our copies of what the command has, so that readers of its pipes see the end when it closes them. */
export function closeInherited(inherited: readonly number[]): void {
  for (const fd of inherited) close(fd);
  const nothing = open("/dev/null", O.RDWR);
  if (typeof nothing !== "number") return;
  c.dup2(nothing, 0);
  c.dup2(nothing, 1);
  if (nothing > 2) close(nothing);
}
