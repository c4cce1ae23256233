/**
 * `exclusive hold` with a store: a process that has a lock, renews it, and does nothing else. Both holds are in this one
 * process, as no command has to be stopped when it ends. Where the store loses the lock, it is taken again.
 */
import { acquire } from "../../acquire.ts";
import { CannotAcquireLock, type Holder, StoreError, WrongArgument } from "../../errors.ts";
import { write } from "../../os/files.ts";
import { ourselves } from "../../os/self.ts";
import type { TimedLease } from "../../store/lease.ts";
import { openEngine } from "../../store/open-store.ts";
import { type DoubleHold, DoubleHoldStore, secondHoldOf } from "../../store/second-hold.ts";
import type { Request } from "../../store/store.ts";
import { EXIT } from "../cli/exit-status.ts";
import { encodeMessage, readMessages, STORE_KEEPER } from "./guardian-protocol.ts";
import { keepHold } from "./keep-hold.ts";
import { whenOver } from "./max-runtime.ts";
import type { RemoteStore } from "./run-plan.ts";

/** It comes through a pipe, since other users can read argv. */
export interface KeeperOrder extends RemoteStore {
  request: Request;
  /** In milliseconds; undefined: until it is stopped. */
  time: number | undefined;
}

/** What the keeper answers: notices, and then one of the others. */
export type FromKeeper =
  | { notice: string }
  | { location: string }
  | { refused: Holder | null; lockfile: string }
  | { failed: string; wrong: boolean };

/**
 * Starts a keeper.
 * @param notice receives why it takes long
 * @returns where the lock lives
 * @throws {CannotAcquireLock} when it is held
 * @throws {StoreError} when the store is unreachable or refuses the request
 */
export async function keepInStore(order: KeeperOrder, notice: (text: string) => void): Promise<string> {
  const keeper = Bun.spawn([...ourselves(), STORE_KEEPER], {
    stdin: new Blob([JSON.stringify(order)]),
    stdout: "pipe",
    stderr: "ignore",
    detached: true,
    argv0: process.argv0, // for ps(1)
  });
  for await (const answer of readMessages<FromKeeper>(keeper.stdout)) {
    if ("notice" in answer) notice(answer.notice);
    else if ("location" in answer) return answer.location;
    else if ("failed" in answer)
      throw answer.wrong ? new WrongArgument(answer.failed) : new StoreError(answer.failed);
    else {
      const { refused, lockfile } = answer;
      const acquiredAt = refused?.acquiredAt && new Date(refused.acquiredAt);
      const holder = refused === null ? undefined : { ...refused, acquiredAt };
      throw new CannotAcquireLock({ lock: order.request.name, lockfile, holder });
    }
  }
  throw new StoreError("the process that was to keep the lock has ended");
}

const tell = (answer: FromKeeper): void => void write(1, encodeMessage(answer));

/** The sub-command `STORE_KEEPER`. */
export async function runStoreKeeper(): Promise<number> {
  const { url, ttl, request, time } = (await Bun.stdin.json()) as KeeperOrder;
  const over = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => over.abort());
  process.on("SIGPIPE", () => {}); // nobody may read the notices any more
  process.chdir("/");
  try {
    const store = await openEngine(url, { ttl, notice: (notice) => tell({ notice }) });
    const lease = await acquire(new DoubleHoldStore(store), request);
    const { main, second } = lease as DoubleHold<TimedLease>;
    tell({ location: lease.location });
    using _time = time === undefined ? undefined : whenOver(time, () => over.abort());
    await Promise.allSettled([
      keepHold(store, secondHoldOf(request), over.signal, second),
      keepHold(store, request, over.signal, main),
    ]);
    await store.close();
    return EXIT.OK;
  } catch (error) {
    if (over.signal.aborted) return EXIT.OK;
    if (error instanceof CannotAcquireLock) tell({ refused: error.holder ?? null, lockfile: error.lockfile });
    else tell({ failed: (error as Error).message, wrong: error instanceof WrongArgument });
    return EXIT.UNAVAILABLE;
  }
}
