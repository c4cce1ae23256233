/** `exclusive()`: function wrapper and decorator. */
import type { AcquireOptions } from "./acquire.ts";
import type { CannotAcquireLock } from "./errors.ts";
import { Lock } from "./lock.ts";
import type { LockOptions } from "./lock-options.ts";
import { callerName } from "./name.ts";
import { directoryOf } from "./store/open-store.ts";
import { asCall } from "./store/own-holds.ts";

/** Which lock, and how long to try for it. Waiting needs an async function. */
export type ExclusiveOptions = LockOptions & AcquireOptions;

// biome-ignore lint/suspicious/noExplicitAny: a function of any signature; `exclusive` returns the same signature
type AnyFunction = (this: any, ...args: any[]) => any;
/** Decorates a method, or wraps a function. */
export type ExclusiveDecorator = <F extends AnyFunction>(
  method: F,
  context?: ClassMethodDecoratorContext,
) => F;

/**
 * Makes a function run under a lock: each call acquires it, and releases it when the function has returned or thrown, or
 * when its promise is settled. `this`, arguments, result and exceptions pass through.
 *
 * @example A function
 * ```ts
 * const nightly = exclusive({ name: "nightly", timeout: "10m" }, async () => "done");
 * await nightly();
 * ```
 * @example Methods
 * ```ts
 * class Jobs {
 *   @exclusive({ name: "report" }) report() {}
 *   @exclusive sync() {}
 * }
 * ```
 * @remarks
 * A call throws (an async function's is rejected with) {@link CannotAcquireLock} when the lock is held. With `wait`,
 * `timeout`, `coalesce`, `latest` or `signal` among the options the function must be async.
 * @throws `TypeError` for anything but a function or method, for a generator (its body runs only after the call), and
 * for a decorator that was compiled with `experimentalDecorators`
 */
export function exclusive<F extends AnyFunction>(options: ExclusiveOptions, fn: F): F;
export function exclusive<F extends AnyFunction>(fn: F, context?: ClassMethodDecoratorContext): F;
export function exclusive(options: ExclusiveOptions): ExclusiveDecorator;
export function exclusive(
  first: ExclusiveOptions | AnyFunction,
  second?: AnyFunction | ClassMethodDecoratorContext,
): unknown {
  const options = typeof first === "function" ? {} : first;
  // The default name is the file that calls `exclusive` now, not the one that will call the function.
  const named = { ...options, name: options.name ?? callerName(exclusive) };
  if (typeof first === "function") return wrap(named, first, second);
  if (typeof second === "function") return wrap(named, second);
  // With `experimentalDecorators` the arguments are a prototype and a property's name.
  if (second !== undefined) throw new TypeError(OLD_DECORATOR);
  return (method: AnyFunction, context?: ClassMethodDecoratorContext) => wrap(named, method, context);
}

const OLD_DECORATOR =
  "exclusive() decorates methods, by standard decorators: remove experimentalDecorators from tsconfig.json, and use Bun 1.4.5 or later";

/** Standard decorators say what they decorate; those of `experimentalDecorators` pass a property's name instead. */
const wrongKind = (kind: unknown) =>
  typeof kind === "string"
    ? `exclusive() decorates methods, not a ${kind}: call it inside a method, or wrap a function`
    : OLD_DECORATOR;

const AsyncFunction = (async () => {}).constructor;
const GeneratorFunction = function* () {}.constructor;
const AsyncGeneratorFunction = async function* () {}.constructor;

function wrap<F extends AnyFunction>(options: ExclusiveOptions, fn: F, context?: unknown): F {
  const kind = (context as ClassMethodDecoratorContext | undefined)?.kind;
  if (typeof fn !== "function" || (context !== undefined && kind !== "method"))
    throw new TypeError(wrongKind(kind));
  if (fn instanceof GeneratorFunction || fn instanceof AsyncGeneratorFunction)
    throw new TypeError("exclusive(): the body of a generator runs after the call, and so without the lock");
  const { wait, timeout, coalesce, latest, signal } = options;
  const isAsync = fn instanceof AsyncFunction;
  if (!isAsync && (wait || timeout !== undefined || coalesce || latest || signal)) {
    throw new TypeError("exclusive(): to wait for the lock, the function must be async");
  }
  if (!isAsync && options.store !== undefined && !isFileUrl(options.store)) {
    throw new TypeError("exclusive(): with a store across the network, the function must be async");
  }
  const wrapped: AnyFunction = isAsync
    ? async function (...args) {
        return asCall(async () => {
          await using _ = await new Lock(options).acquire({ wait, timeout, coalesce, latest, signal });
          return await fn.apply(this, args);
        });
      }
    : function (...args) {
        return asCall(() => runSync(new Lock(options), () => fn.apply(this, args)));
      };
  Object.defineProperty(wrapped, "name", { value: fn.name, configurable: true });
  Object.defineProperty(wrapped, "length", { value: fn.length, configurable: true });
  return wrapped as F;
}

/** Runs under the lock, until the end, or the end of the promise that is returned. */
function runSync(lock: Lock, body: () => unknown): unknown {
  lock.acquireSync();
  let result: unknown;
  try {
    result = body();
  } catch (error) {
    lock.releaseSync();
    throw error;
  }
  if (isThenable(result)) return Promise.resolve(result).finally(() => lock.release());
  lock.releaseSync();
  return result;
}

const isFileUrl = (store: unknown): boolean => typeof store === "string" && directoryOf(store) !== undefined;

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof (value as PromiseLike<unknown> | undefined | null)?.then === "function";
