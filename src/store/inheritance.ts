/** Whether this process runs under a lock already: because it has inherited it, or because an ancestor holds it. */
import { type Holder, printable } from "../errors.ts";
import * as files from "../os/files.ts";
import { O } from "../os/files.ts";
import { type Inherited, inheritedLock } from "../os/inherited-lock.ts";
import { openLocks, waitsInKernel } from "../os/lock-table.ts";
import { parentOf } from "../os/processes.ts";
import { FileStore } from "./file/file-store.ts";
import { heldSlots } from "./look-up.ts";
import type { LockStatus, Store } from "./store.ts";

/**
 * How this process has inherited a lock, or one of its slots. In a file, by proof: an open file that holds it. In a remote
 * store, by the record of a holder on this machine: a living wrapper that we descend from.
 */
export async function inherited(store: Store, name: string): Promise<Inherited> {
  const own = await inheritedOne(store, name);
  if (own !== "none") return own;
  for (const slot of await heldSlots(store, name)) {
    const how = await inheritedOne(store, slot.name);
    if (how !== "none") return how;
  }
  return "none";
}

async function inheritedOne(store: Store, name: string): Promise<Inherited> {
  if (store instanceof FileStore) return inheritedLock(store.location(name), fileAt(store, name));
  const status = await store.status(name);
  if (status.state === "unknown") return "unknown";
  const holder = holdersOf(status).find(isOurWrapper);
  return holder === undefined ? "none" : (holder.mode ?? "exclusive");
}

/** The file of a lock, a link followed; undefined where there is none, or it cannot be seen. */
function fileAt(store: FileStore, name: string): files.FileStatus | undefined {
  const path = store.location(name);
  const status = files.lstat(path);
  if (typeof status === "string") return undefined;
  if (status.regular || status.directory) return status;
  const fd = files.open(path, O.RDONLY | O.NONBLOCK);
  if (typeof fd === "string") return undefined;
  const followed = files.fstat(fd);
  files.close(fd);
  return typeof followed === "string" ? undefined : followed;
}

const holdersOf = ({ holder, others = [] }: LockStatus): Holder[] => (holder ? [holder, ...others] : others);

/** Is this holder a living wrapper whose command we are, or descend from? */
function isOurWrapper({ pid, alive, commandPid }: Holder): boolean {
  if (pid === undefined || !alive) return false;
  const line = ancestors();
  const at = line.indexOf(pid);
  return at > 0 && (commandPid === undefined || line.slice(0, at).includes(commandPid));
}

/** This process, its parent, and so on. */
function ancestors(): number[] {
  const line: number[] = [];
  for (let pid: number | undefined = process.pid; pid && !line.includes(pid); pid = parentOf(pid))
    line.push(pid);
  return line;
}

/** Why a wait could never end. */
export interface Endless {
  reason: string;
  /** We run under the lock already. */
  inherited: boolean;
  /** The process that waits for us. */
  waiter?: number;
}

/**
 * Why a wait for this lock could never end: we run under it already, or what holds it waits for us. Undefined where that is
 * not known. With slots, only when it is so of each. To be asked before the wait begins: one that is underway may have just
 * got the lock.
 * @param isCommand this process has taken no lock: one that its pid has taken came through an execve(2)
 */
export async function endlessWait(
  store: Store,
  lock: string,
  names: string[],
  isCommand: boolean,
): Promise<Endless | undefined> {
  return ofEach(lock, names, (name) => endlessReason(store, name, isCommand));
}

/** Why a wait that has begun never ends: what holds the lock waits for us by now. Otherwise as `endlessWait`. */
export const waitCircle = async (store: Store, lock: string, names: string[]): Promise<Endless | undefined> =>
  ofEach(lock, names, async (name) => waitedFor(fileIn(store, name)));

async function ofEach(
  lock: string,
  names: string[],
  reasonFor: (name: string) => Promise<Endless | undefined>,
): Promise<Endless | undefined> {
  let found: Endless | undefined;
  for (const name of names) {
    found = await reasonFor(name);
    if (found === undefined) return undefined;
  }
  return (
    found && { ...found, reason: `'${printable(lock)}' is held by ${found.reason}: a wait would never end` }
  );
}

/** Is the lock held by an ancestor, by a descriptor that we have inherited, or by what waits for us? */
async function endlessReason(store: Store, name: string, isCommand: boolean): Promise<Endless | undefined> {
  const status = await store.status(name);
  const ours = holdersOf(status).find(isOurWrapper);
  if (ours?.commandPid !== undefined)
    return { reason: `this process' own ${relation(ours.pid!)} (pid ${ours.pid})`, inherited: true };
  const file = fileIn(store, name);
  if (file === undefined) return undefined;
  const how = inheritedLock(store.location(name), file, isCommand);
  if (how !== "shared" && how !== "exclusive") return waitedFor(file);
  const pid = status.holder?.alive ? status.holder.pid : undefined;
  const reason =
    pid === undefined || pid === process.pid
      ? "this process itself, by a descriptor that it inherited"
      : `this process' own ${relation(pid)} (pid ${pid}), which passed it on`;
  return { reason, inherited: true };
}

const fileIn = (store: Store, name: string): files.FileStatus | undefined =>
  store instanceof FileStore ? fileAt(store, name) : undefined;

/** Does what holds the lock of this file wait for us? */
function waitedFor(file: files.FileStatus | undefined): Endless | undefined {
  const waiter = file && waitsForUs(String(file.ino));
  if (waiter === undefined) return undefined;
  return { reason: `a process that waits for this one (pid ${waiter})`, inherited: false, waiter };
}

const relation = (pid: number): string => (parentOf(process.pid) === pid ? "parent" : "ancestor");

const lockedInodes = (pid: number): Set<string> => new Set((openLocks(pid) ?? []).map(({ inode }) => inode));

/**
 * Finds a circle of waits: a process that has the wanted lock's open file waits for a lock whose open file we have, directly
 * or through others. Known on Linux only.
 */
function waitsForUs(wanted: string): number | undefined {
  const ours = lockedInodes(process.pid);
  ours.delete(wanted); // ours by now, if the wait has just ended
  if (ours.size === 0) return undefined;
  const waits = waitsInKernel();
  const seen = new Set([wanted]);
  for (const inode of seen) {
    for (const { pid, inode: next } of waits) {
      if (pid === process.pid || !lockedInodes(pid).has(inode)) continue;
      if (ours.has(next)) return pid;
      seen.add(next);
    }
  }
  return undefined;
}
