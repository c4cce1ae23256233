/** From a URL to a store. An engine is loaded when its URL is first used. */
import type { Duration } from "../duration.ts";
import { WrongArgument } from "../errors.ts";
import type { Engine } from "./engine.ts";
import type { TimedLease } from "./lease.ts";
import type { Store } from "./store.ts";
import { StoreUrl } from "./store-url.ts";

/** How to use a store. */
export interface StoreOptions {
  /**
   * How long a server keeps the lock of a silent holder: from `"1s"` to `"1d"`, default `"15s"`. All clients of one
   * store should use the same value: see docs/stores.md.
   */
  ttl?: Duration | undefined;
  /** Receives a sentence when something other than a holder delays an acquire. Default: prints it to stderr. */
  notice?: ((message: string) => void) | undefined;
}

const ENGINES: Record<string, () => Promise<Engine>> = {
  postgres: () => import("./postgres/postgres.ts"),
  postgresql: () => import("./postgres/postgres.ts"),
  mysql: () => import("./mysql/mysql.ts"),
  mariadb: () => import("./mysql/mysql.ts"),
  redis: () => import("./redis/redis.ts"),
  rediss: () => import("./redis/redis.ts"),
  etcd: () => import("./etcd/etcd.ts"),
  etcds: () => import("./etcd/etcd.ts"),
};

const MIN_TTL = 1000;
const MAX_TTL = 86_400_000;

/** The scheme of a URL, in lower case; "" for text without one. */
const schemeOf = (url: string): string => (/^[a-z][a-z0-9+.-]*(?=:)/i.exec(url)?.[0] ?? "").toLowerCase();

/**
 * Checks that a URL has the scheme of a store, and returns it.
 * @throws `TypeError` for any other URL. The message names the scheme alone, since the rest may hold a secret.
 */
export function checkStoreUrl(url: string): string {
  const scheme = schemeOf(url);
  if (scheme === "file" || Object.hasOwn(ENGINES, scheme)) return url;
  const known = `file, ${Object.keys(ENGINES).join(", ")}`;
  throw new WrongArgument(
    scheme === ""
      ? "a store is a URL such as redis://HOST:6379"
      : `unsupported store '${scheme}' (supported: ${known})`,
  );
}

/** The directory of a `file:` URL; undefined for another URL. */
export function directoryOf(url: string): string | undefined {
  return schemeOf(url) === "file" ? Bun.fileURLToPath(url) : undefined;
}

/**
 * Opens a store. In a remote store every lock is held twice, so that one fault cannot let two processes in.
 * @param url `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `rediss://…` with TLS, `postgres://…`,
 *   `mysql://…` or `mariadb://…`, `etcd://…`, `etcds://…` with TLS, or `file:///DIR`
 * @throws `TypeError` for a malformed URL, or one of another scheme
 * @throws `RangeError` for a `ttl` that is not a duration from 1 second to 1 day
 * @throws {@link StoreError} when the server is unreachable or refuses the connection
 */
export async function openStore(url: string, options: StoreOptions = {}): Promise<Store> {
  const dir = directoryOf(checkStoreUrl(url));
  if (dir !== undefined) return new (await import("./file/file-store.ts")).FileStore({ dir });
  const { DoubleHoldStore } = await import("./second-hold.ts");
  return new DoubleHoldStore(await openEngine(url, options));
}

/**
 * Opens a remote store in which a lock is held once: for callers that take the second hold in another process.
 * @param url as for `openStore`, but not `file:`
 * @throws `TypeError` for a malformed URL, or one of another scheme
 * @throws `RangeError` for a `ttl` that is not a duration from 1 second to 1 day
 * @throws {StoreError} when the server is unreachable or refuses the connection
 */
export async function openEngine(url: string, options: StoreOptions = {}): Promise<Store<TimedLease>> {
  const load = ENGINES[schemeOf(checkStoreUrl(url))];
  if (load === undefined) throw new TypeError("a directory of lock files is not a remote store");
  const [{ DEFAULT_TTL }, { withUnit, WrongDuration }] = await Promise.all([
    import("./lease.ts"),
    import("../duration.ts"),
  ]);
  const ttl = options.ttl === undefined ? DEFAULT_TTL : withUnit(options.ttl);
  if (!(ttl >= MIN_TTL && ttl <= MAX_TTL)) throw new WrongDuration("ttl must be from 1s to 1d");
  const notice = options.notice ?? ((message) => console.error(`exclusive: ${message}`));
  const { open } = await load();
  return open(new StoreUrl(url), { ttl: Math.round(ttl), notice });
}
