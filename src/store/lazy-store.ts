/** A store that connects when it is first used. */
import { openStore, type StoreOptions } from "./open-store.ts";
import type { Lease, LockStatus, Place, Request, Store } from "./store.ts";
import { StoreUrl } from "./store-url.ts";

/** A remote store, by its URL. It is connected while a request is running or a lock is held. */
export class LazyStore implements Store {
  /** The running requests and the held locks. */
  #users = 0;
  #opened: Promise<Store> | undefined;

  /**
   * @param url of a remote store, checked by `checkStoreUrl`
   * @param options `lasting`: stay connected between requests, until `close()`
   */
  constructor(
    private readonly url: string,
    private readonly options: StoreOptions & { lasting?: boolean },
  ) {}

  async tryAcquire(request: Request, signal?: AbortSignal): Promise<Lease | undefined> {
    return this.#use(async (store) => {
      const lease = await store.tryAcquire(request, signal);
      return lease && this.#connectedUntilRelease(lease);
    });
  }
  async waitAcquire(request: Request, signal?: AbortSignal): Promise<Lease> {
    return this.#use(async (store) => this.#connectedUntilRelease(await store.waitAcquire(request, signal)));
  }
  async takePlace(name: string, started: number, signal?: AbortSignal): Promise<Place> {
    return this.#use(async (store) => {
      const place = await store.takePlace(name, started, signal);
      const lease = this.#connectedUntilRelease(place.lease);
      const { lookEvery } = place;
      return { lease, lookEvery, isNewest: () => place.isNewest(), hasOlder: () => place.hasOlder() };
    });
  }
  async waitFree(name: string, signal?: AbortSignal): Promise<void> {
    return this.#use((store) => store.waitFree(name, signal));
  }
  async status(name: string): Promise<LockStatus> {
    return this.#use((store) => store.status(name));
  }
  async list(): Promise<LockStatus[]> {
    return this.#use((store) => store.list());
  }
  location(_name: string): string {
    return new StoreUrl(this.url).redacted;
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
        this.#opened = undefined; // the next request connects again
        throw error;
      });
      return await ask(opened);
    } finally {
      await this.#leave();
    }
  }

  /** The same lease. Its release also ends its use of the connection. */
  #connectedUntilRelease(lease: Lease): Lease {
    this.#users++;
    let release: Promise<void> | undefined;
    return {
      location: lease.location,
      token: lease.token,
      get lost() {
        return lease.lost;
      },
      recordCommand: (pid) => lease.recordCommand?.(pid),
      release: () => (release ??= lease.release().finally(() => this.#leave())),
    };
  }

  async #leave(): Promise<void> {
    if (--this.#users === 0 && !this.options.lasting) await this.close();
  }
}
