/** exclusiveprocess: run code under a named lock, so that it never runs in two processes at the same time. */
export type { AcquireOptions } from "./acquire.ts";
export type { Duration } from "./duration.ts";
export {
  CannotAcquireLock,
  EndlessWait,
  LockFileError,
  LockLost,
  LockTimeout,
  type Refusal,
  StoreError,
  Superseded,
} from "./errors.ts";
export type { EventFields, EventName, HolderJson, LockEvent } from "./events.ts";
export { type ExclusiveDecorator, type ExclusiveOptions, exclusive } from "./exclusive.ts";
export type { Holder, Mode } from "./holder.ts";
export { Lock } from "./lock.ts";
export type { LockOptions } from "./lock-options.ts";
export type { Logger } from "./logger.ts";
export { openStore, type StoreOptions } from "./store/open-store.ts";
export type { Lease, LockStatus, LockStatusJson, Request, Store } from "./store/store.ts";
