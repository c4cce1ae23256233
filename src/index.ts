/** exclusiveprocess: a lock that keeps code from running in two processes at once. */
export type { Duration } from "./duration.ts";
export {
  CannotAcquireLock,
  LockFileError,
  LockLost,
  LockTimeout,
  type Refusal,
  StoreError,
} from "./errors.ts";
export { type ExclusiveDecorator, type ExclusiveOptions, exclusive } from "./exclusive.ts";
export type { Holder, Mode } from "./holder.ts";
export { type AcquireOptions, Lock, type LockOptions } from "./lock.ts";
export type { Logger } from "./logger.ts";
export { openStore, type StoreOptions } from "./store/open-store.ts";
export type { Lease, LockStatus, LockStatusJson, Request, Store } from "./store/store.ts";
