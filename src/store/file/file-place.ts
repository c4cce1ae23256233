/**
 * Places in files, of waiters of which only the newest stays (`latest.ts`): each is a lock of its own. The name says which
 * lock is waited for, and since when; the kernel says whether the waiter lives.
 */
import { fileName, seatName } from "../../name.ts";
import * as files from "../../os/files.ts";
import { flock, LOCK } from "../../os/flock.ts";
import type { Place, Request } from "../store.ts";
import { pause } from "../time-limit.ts";
import type { FileLease } from "./file-lease.ts";
import { openIfPresent } from "./lock-file.ts";

/** How often a waiter looks for a newer one: that reads the names of the directory. */
const LOOK_MS = 250;
/** A look at a new file may come before its lock. */
const RETRY_MS = 5;

/** Places that this process has taken. */
let taken = 0;

/** Takes a place in the store's directory. @param started when the lock was asked for, on `clock()` */
export async function takePlaceIn(
  store: { dir: string; tryAcquire(request: Request): Promise<FileLease | undefined> },
  name: string,
  started: number,
  signal?: AbortSignal,
): Promise<Place> {
  // A hash, since a long name would be cut, and the time with it.
  const seat = seatName(new Bun.CryptoHasher("sha256").update(name).digest("hex").slice(0, 32));
  // Among those that were started in the same moment the pids decide.
  const order = [Math.round(started * 1000), process.pid, ++taken];
  const own = `${seat}\0${order.map((number) => String(number).padStart(16, "0")).join("-")}`;
  let lease = await store.tryAcquire({ name: own, mode: "exclusive" });
  for (; lease === undefined; lease = await store.tryAcquire({ name: own, mode: "exclusive" }))
    await pause(RETRY_MS, signal);
  const ours = fileName(own);
  const prefix = ours.slice(0, fileName(seat).lastIndexOf("."));
  const others = (which: (file: string) => boolean) => {
    const names = files.readDirectory(store.dir);
    const places = typeof names === "string" ? [] : names.filter((file) => file.startsWith(prefix));
    return places.filter(which).map((file) => `${store.dir}/${file}`);
  };
  for (const path of others((file) => file < ours)) isHeld(path); // those of killed waiters are removed
  const isNewest = async () => !others((file) => file > ours).some(isHeld);
  const hasOlder = async () => others((file) => file < ours).some(isHeld);
  return { lease, lookEvery: LOOK_MS, isNewest, hasOlder };
}

/**
 * Is the place of this file held? One whose waiter was killed is removed: no other process ever takes it. A waiter whose
 * file is removed before it has locked it makes it again.
 */
function isHeld(path: string): boolean {
  const { fd } = openIfPresent(path);
  if (typeof fd === "string") return false;
  const failure = flock(fd, LOCK.SH | LOCK.NB);
  if (failure === undefined) files.unlink(path);
  files.close(fd);
  return failure === "EAGAIN";
}
