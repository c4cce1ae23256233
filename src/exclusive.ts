/** `exclusive()`: function wrapper and decorator. */
import { type AcquireOptions, Lock, type LockOptions } from "./lock.ts";
import { callerName } from "./name.ts";

/** What the lock is, and how long to try for it. Waiting needs an async function. */
export type ExclusiveOptions = LockOptions & AcquireOptions;

// biome-ignore lint/suspicious/noExplicitAny: a function of any signature, which is kept
type AnyFunction = (this: any, ...args: any[]) => any;
/** Applies to a method, or to a function. */
export type ExclusiveDecorator = <F extends AnyFunction>(
  method: F,
  context?: ClassMethodDecoratorContext,
) => F;

/**
 * Makes a function run under a lock: each call takes it, and gives it back when the function has returned,
 * thrown, or its promise is settled. `this`, arguments, result and exceptions pass through.
 *
 * ```ts
 * const nightly = exclusive({ name: "nightly" }, async () => { … });
 * class Jobs { @exclusive({ name: "report" }) report() { … }  @exclusive sync() { … } }
 * ```
 *
 * A call throws (an async function's is rejected with) `CannotAcquireLock` when the lock is held. Where
 * `options` has `wait`, `timeout` or `signal` the function must be async, so that there is a promise to wait in.
 */
export function exclusive<F extends AnyFunction>(options: ExclusiveOptions, fn: F): F;
export function exclusive<F extends AnyFunction>(fn: F, context?: ClassMethodDecoratorContext): F;
export function exclusive(options: ExclusiveOptions): ExclusiveDecorator;
export function exclusive(
  first: ExclusiveOptions | AnyFunction,
  second?: AnyFunction | ClassMethodDecoratorContext,
): unknown {
  const options = typeof first === "function" ? {} : first;
  // The name is that of the file which calls us now, not of the one that will call the function.
  const named = { ...options, name: options.name ?? callerName(exclusive) };
  if (typeof first === "function") return wrap(named, first);
  if (typeof second === "function") return wrap(named, second);
  return (method: AnyFunction) => wrap(named, method);
}

const AsyncFunction = (async () => {}).constructor;

function wrap<F extends AnyFunction>(options: ExclusiveOptions, fn: F): F {
  const { wait, timeout, signal } = options;
  const isAsync = fn instanceof AsyncFunction;
  if (!isAsync && (wait || timeout !== undefined || signal)) {
    throw new TypeError("exclusive(): to wait for the lock, the function must be async");
  }
  const wrapped: AnyFunction = isAsync
    ? async function (...args) {
        await using _ = await new Lock(options).acquire({ wait, timeout, signal });
        return await fn.apply(this, args);
      }
    : function (...args) {
        const lock = new Lock(options).acquireSync();
        let result: unknown;
        try {
          result = fn.apply(this, args);
        } catch (error) {
          lock.releaseSync();
          throw error;
        }
        if (result instanceof Promise) return result.finally(() => lock.release());
        lock.releaseSync();
        return result;
      };
  Object.defineProperty(wrapped, "name", { value: fn.name, configurable: true });
  Object.defineProperty(wrapped, "length", { value: fn.length, configurable: true });
  return wrapped as F;
}
