/** From a URL to a store. Nothing of an engine is loaded before its URL is used. */
import type { Duration } from "../duration.ts";
import type { TimedLease } from "./lease.ts";
import type { Lease, LockStatus, Request, Store } from "./store.ts";
import { Address } from "./store-url.ts";

/** How a store is used. */
export interface StoreOptions {
  /**
   * How long the store keeps a lock whose holder has gone silent: from 1 s to 1 d, default 15 s. Everybody who uses
   * one store should say the same: see docs/stores.md.
   */
  ttl?: Duration | undefined;
  /** Told when something makes an acquire slow that is not a holder. Default: stderr. */
  notice?: ((message: string) => void) | undefined;
  /** @internal Locks without their witness: for who takes the witness in another process. */
  witness?: boolean | undefined;
}

/** What an engine's module is opened with. */
export interface EngineOptions {
  /** Milliseconds. */
  ttl: number;
  notice: (message: string) => void;
}

/**
 * An engine's module: `open` checks the URL and may connect.
 * @throws {TypeError} for a URL that cannot be
 * @throws {StoreError} when the server cannot be reached or refuses us
 */
interface Engine {
  open(address: Address, options: EngineOptions): Promise<Store>;
}

const ENGINES: Record<string, () => Promise<Engine>> = {
  postgres: () => import("./postgres/postgres.ts"),
  postgresql: () => import("./postgres/postgres.ts"),
  redis: () => import("./redis/redis.ts"),
  rediss: () => import("./redis/redis.ts"),
  etcd: () => import("./etcd/etcd.ts"),
  etcds: () => import("./etcd/etcd.ts"),
};

const MIN_TTL = 1000;
const MAX_TTL = 86_400_000;

/** The scheme of a store's URL, in lower case; "" where there is none. */
const schemeOf = (url: string): string => (/^[a-z][a-z0-9+.-]*(?=:)/i.exec(url)?.[0] ?? "").toLowerCase();

/**
 * Checks that a URL names an engine that we know.
 * @throws {TypeError} if not; it names the scheme alone, as what is no URL of ours may hold any secret
 */
export function checkStoreUrl(url: string): string {
  const scheme = schemeOf(url);
  if (scheme === "file" || Object.hasOwn(ENGINES, scheme)) return url;
  const known = `file, ${Object.keys(ENGINES).join(", ")}`;
  throw new TypeError(
    scheme === ""
      ? "a store is a URL such as redis://HOST:6379"
      : `no store has the scheme '${scheme}': (${known})`,
  );
}

/** The directory that a `file:` URL names; undefined for another URL. */
export function directoryOf(url: string): string | undefined {
  return schemeOf(url) === "file" ? Bun.fileURLToPath(url) : undefined;
}

/**
 * Opens a store.
 * @param url `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `rediss://…` with TLS, `postgres://…`, `etcd://…`,
 *   or `file:///DIR`
 * @throws {TypeError} for a URL that names no store
 * @throws {RangeError} for a `ttl` that is none
 * @throws {StoreError} when the server cannot be reached, or refuses us
 */
export async function openStore(url: string, options: StoreOptions = {}): Promise<Store> {
  checkStoreUrl(url);
  const dir = directoryOf(url);
  if (dir !== undefined) return new (await import("./file/file-store.ts")).FileStore({ dir });
  const { Witnessed } = await import("./second-hold.ts");
  const engine = await openEngine(url, options);
  return options.witness === false ? engine : new Witnessed(engine);
}

/**
 * Opens a remote store in which a lock is held once: for a caller that takes the second hold itself, in another process.
 * @param url as for `openStore`, but not `file:`
 */
export async function openEngine(url: string, options: StoreOptions = {}): Promise<Store<TimedLease>> {
  const [{ DEFAULT_TTL }, { milliseconds }] = await Promise.all([
    import("./lease.ts"),
    import("../duration.ts"),
  ]);
  const ttl = options.ttl === undefined ? DEFAULT_TTL : milliseconds(options.ttl);
  if (!(ttl >= MIN_TTL && ttl <= MAX_TTL)) throw new RangeError("ttl must be from 1s to 1d");
  const notice = options.notice ?? ((message) => process.stderr.write(`exclusive: ${message}\n`));
  const { open } = await ENGINES[schemeOf(checkStoreUrl(url))]!();
  return (await open(new Address(url), { ttl: Math.round(ttl), notice })) as Store<TimedLease>;
}

/** Waits until nobody holds the lock: as one who wants it, where the engine knows no other way. */
async function waitFree(store: Store, name: string, signal: AbortSignal | undefined): Promise<void> {
  if (store.waitFree) return store.waitFree(name, signal);
  await (await store.waitAcquire({ name, mode: "exclusive" }, signal)).release();
}

/** A store by its URL: connected as long as something is asked of it, or held. */
export class LazyStore implements Store {
  #users = 0;
  #opened: Promise<Store> | undefined;

  /** @param options `lasting`: the connection is kept, also while nothing is asked */
  constructor(
    private readonly url: string,
    private readonly options: StoreOptions & { lasting?: boolean },
  ) {}

  async tryAcquire(request: Request, signal?: AbortSignal): Promise<Lease | undefined> {
    return this.#use(async (store) => this.#keep(await store.tryAcquire(request, signal)));
  }
  async waitAcquire(request: Request, signal?: AbortSignal): Promise<Lease> {
    return this.#use(async (store) => this.#keep(await store.waitAcquire(request, signal))!);
  }
  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    return this.#use((store) => waitFree(store, name, signal));
  }
  async status(name: string): Promise<LockStatus> {
    return this.#use((store) => store.status(name));
  }
  async list(): Promise<LockStatus[]> {
    return this.#use((store) => store.list());
  }
  place(_name: string): string {
    return new Address(this.url).shown;
  }
  async close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    await (await opened?.catch(() => undefined))?.close();
  }

  async #use<T>(ask: (store: Store) => Promise<T>): Promise<T> {
    this.#users++;
    try {
      this.#opened ??= openStore(this.url, this.options);
      const opened = await this.#opened.catch((error: unknown) => {
        this.#opened = undefined; // the next one tries again
        throw error;
      });
      return await ask(opened);
    } finally {
      await this.#leave();
    }
  }

  /** The connection lasts as long as the lease. */
  #keep(lease: Lease | undefined): Lease | undefined {
    if (lease === undefined) return undefined;
    this.#users++;
    let release: Promise<void> | undefined;
    return {
      place: lease.place,
      token: lease.token,
      lost: lease.lost,
      recordCommand: (pid) => lease.recordCommand?.(pid),
      release: () => (release ??= lease.release().finally(() => this.#leave())),
    };
  }

  async #leave(): Promise<void> {
    if (--this.#users === 0 && !this.options.lasting) await this.close();
  }
}
