/** Descriptors that a command inherits, and where it finds the lock's. */
import { systemError } from "./errors.ts";
import { close, O, open, readDirectory, readlink, readText } from "./files.ts";
import { address, failureOf, libc, linux } from "./libc.ts";

const RLIMIT_NOFILE = linux ? 7 : 8;
const F_GETFD = 1;
const F_SETFD = 2;
const FD_CLOEXEC = 1;

/**
 * What stands between two arguments and the third of a C function of variable arguments, as fcntl(2) and ioctl(2). On Linux
 * these are passed as any others; on Apple's ARM they go on the stack, behind eight registers, so six more fill those.
 */
export const FILLERS: readonly 0[] = !linux && process.arch === "arm64" ? [0, 0, 0, 0, 0, 0] : [];

const c = libc({
  getrlimit: { args: ["i32", "ptr"], returns: "i32" },
  dup2: { args: ["i32", "i32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", ...FILLERS.map(() => "i64" as const), "i64"], returns: "i32" },
});

/** The descriptor's flags: close-on-exec, or none. Negative where it is not open. */
const flagsOf = (fd: number): number => c.fcntl(fd, F_GETFD, ...FILLERS, 0);

/** The descriptor stays open in a program that is executed. Neither its epoll sets nor its POSIX locks are touched by this. */
export const keepOnExec = (fd: number): void => void c.fcntl(fd, F_SETFD, ...FILLERS, 0);

/** The descriptor is closed in a program that is executed. */
export const closeOnExec = (fd: number): void => void c.fcntl(fd, F_SETFD, ...FILLERS, FD_CLOEXEC);

let inherited: readonly number[] | undefined;

/**
 * The descriptors from 3 on that we were started with, without those of Bun's event loop. Found out at the first call: it
 * must come before this process opens any.
 */
export function inheritedDescriptors(): readonly number[] {
  inherited ??= findInherited();
  return inherited;
}

function findInherited(): number[] {
  const names = readDirectory(linux ? "/proc/self/fd" : "/dev/fd");
  if (typeof names === "string") return [];
  // Without the one by which the directory was read.
  const open = names.map(Number).filter((fd) => fd > 2 && flagsOf(fd) >= 0);
  const own = linux ? eventLoop(open) : [];
  return open.filter((fd) => !own.includes(fd));
}

/** An epoll and the eventfd that it watches. */
type EventLoop = [epoll: number, eventfd: number, data: bigint];

/** The two descriptors that Bun has opened before our code runs. An inherited pair of the same shape is told apart by its data. */
function eventLoop(open: readonly number[]): number[] {
  const pairs: EventLoop[] = [];
  for (const fd of open) {
    if (readlink(`/proc/self/fd/${fd}`) !== "anon_inode:[eventpoll]") continue;
    const info = readText(`/proc/self/fdinfo/${fd}`) ?? "";
    const [watched, ...others] = info.matchAll(/^tfd:\s+(\d+) .*?data:\s+(\w+)/gm);
    if (watched === undefined || others.length > 0) continue;
    const eventfd = Number(watched[1]);
    if (eventfd < fd || readlink(`/proc/self/fd/${eventfd}`) !== "anon_inode:[eventfd]") continue;
    // The first number, 3, keeps the flags that it had, and an inherited descriptor never has close-on-exec.
    if (flagsOf(fd) & flagsOf(eventfd) & FD_CLOEXEC) pairs.push([fd, eventfd, BigInt(`0x${watched[2]}`)]);
  }
  const [pair] = pairs.length < 2 ? pairs : pairs.filter(([, , data]) => isMapped(data));
  return pair?.slice(0, 2).map(Number) ?? [];
}

/** Is this an address of ours? Bun's loop finds its handlers by addresses; another program's are not mapped here. */
function isMapped(data: bigint): boolean {
  const at = data & 0xffff_ffff_ffffn;
  const ranges = (readText("/proc/self/maps") ?? "").matchAll(/^(\w+)-(\w+) /gm);
  return ranges.some(([, from, to]) => at >= BigInt(`0x${from}`) && at < BigInt(`0x${to}`));
}

/**
 * Was this descriptor open when we were started? Bun puts /dev/null in the place of a closed 0, 1 or 2: with close-on-exec,
 * which no descriptor has that came through an execve(2). Known on Linux only.
 */
export function isInherited(fd: number): boolean {
  if (fd > 2) return inheritedDescriptors().includes(fd);
  return fd >= 0 && (!linux || flagsOf(fd) === 0);
}

/** The number that a file would get if another program, started in our place, opened it first: open(2). */
function lowestFree(): number {
  let fd = 0;
  while (isInherited(fd)) fd++;
  return fd;
}

/** dup2(2): the copy has no close-on-exec. */
export function duplicate(fd: number, to: number): void {
  c.dup2(fd, to);
}

/** Which descriptor holds the lock, and where the command finds it. */
export interface LockPlacement {
  /** The descriptor that holds the lock; -1 where the lock lives in a store. */
  lockFd: number;
  /**
   * Where the command finds the lock. By default at the highest number that does not enlarge the table of descriptors.
   * `lowest`: where it would be if the command's parent had opened it and nothing else; `inherited`: at its number, which
   * we were started with; `closed`: nowhere.
   */
  lockAt?: "lowest" | "inherited" | "closed" | undefined;
}

/** Where the lock's descriptor is now, in this process. */
export interface LockDescriptor {
  lockFd: number;
}

/** The largest number that a table of the default size has room for. */
const HIGHEST = 1023;

/** The highest free number below the soft limit, and the table's size, that is above this one. */
function highestFree(above: number): number | undefined {
  const limits = new BigUint64Array(2);
  c.getrlimit(RLIMIT_NOFILE, address(limits));
  let fd = limits[0]! > HIGHEST ? HIGHEST : Number(limits[0]!) - 1;
  while (fd > above && flagsOf(fd) >= 0) fd--;
  return fd > above ? fd : undefined;
}

/**
 * Makes ready what the command inherits: call it last before the command starts. `target` is the lock's number there, where
 * the child itself has to put it.
 * @throws {LockFileError} when the lock cannot be moved there: the command would run without it
 */
export function prepareDescriptors({
  lockFd,
  lockAt,
}: LockPlacement): LockDescriptor & { target?: number | undefined } {
  for (const fd of inheritedDescriptors()) keepOnExec(fd);
  if (lockFd < 0) return { lockFd };
  if (lockAt === "lowest") {
    const target = lowestFree();
    if (target !== lockFd) return { lockFd, target };
  }
  if (lockAt === "closed") {
    closeOnExec(lockFd);
    return { lockFd };
  }
  const high = lockAt !== undefined ? undefined : highestFree(lockFd);
  if (high === undefined) {
    keepOnExec(lockFd);
    return { lockFd };
  }
  const failure = failureOf(c.dup2(lockFd, high));
  if (failure !== undefined) throw systemError("dup2", "the command", failure, { doing: "hand the lock to" });
  close(lockFd);
  return { lockFd: high };
}

/**
 * Closes our copies of what the command has, so that readers of its pipes see the end when it closes them.
 * @param lockFd stays
 */
export function closeInherited(lockFd: number): void {
  for (const fd of inheritedDescriptors()) if (fd !== lockFd) close(fd);
  let nothing = open("/dev/null", O.RDWR);
  if (typeof nothing !== "number") nothing = open("/", O.RDONLY); // no /dev: what cannot be read or written does as well
  if (typeof nothing !== "number") return;
  for (const fd of [0, 1]) if (fd !== lockFd) c.dup2(nothing, fd);
  if (nothing > 2) close(nothing);
}

/**
 * Lets go of stderr where the command has closed its own copy, so that the reader of a pipe sees the end. Up to then it stays
 * open for what has to be reported. Known on Linux only; elsewhere it stays open.
 */
export function releaseStderrWith(pid: number): void {
  const ours = linux ? readlink("/proc/self/fd/2") : undefined;
  if (ours === undefined || !/^(pipe|socket):/.test(ours)) return;
  const directory = `/proc/${pid}/fd`;
  const fds = readDirectory(directory);
  if (typeof fds === "string" || fds.length === 0) return; // it has ended
  if (fds.some((fd) => readlink(`${directory}/${fd}`) === ours)) return;
  const nothing = open("/dev/null", O.RDWR);
  if (typeof nothing !== "number") return;
  c.dup2(nothing, 2);
  if (nothing > 2) close(nothing);
}
