/** Connections to Redis: one for requests, and one for each wait. What is gone is made anew with the next request. */
import { RedisClient } from "bun";
import { StoreError } from "../../errors.ts";
import { within } from "../lease.ts";
import type { Address } from "../store-url.ts";

/** The server answered with an error, which it would do again. */
export class Refused extends StoreError {}

export class Connection {
  readonly database: string;
  readonly #url: string;
  readonly #tls: Bun.TLSOptions | undefined;
  #client: Promise<RedisClient> | undefined;

  /** @param patience how long an answer is waited for, in milliseconds */
  constructor(
    private readonly address: Address,
    private readonly patience: number,
  ) {
    const url = parse(address);
    this.database = url.pathname.slice(1) || "0";
    const ca = url.searchParams.get("cacert");
    this.#tls = ca === null ? undefined : { ca: Bun.file(ca) };
    url.search = "";
    this.#url = url.href;
  }

  /** A command; the connection is made when there is none. */
  // biome-ignore lint/suspicious/noExplicitAny: a reply is what the command says it is
  async send(command: string, ...args: string[]): Promise<any> {
    const limit = AbortSignal.timeout(this.patience);
    let current: Promise<RedisClient> | undefined;
    try {
      current = this.#client ??= this.#connect();
      const client = await within(limit, current);
      return await within(limit, client.send(command, args));
    } catch (error) {
      const failure = this.#failure(error);
      if (!(failure instanceof Refused)) this.#drop(current);
      throw failure;
    }
  }

  /**
   * A connection of its own that hears of releases.
   * @param keys channels of keyspace notifications
   */
  async bell(channel: string, keys: string[]): Promise<Bell> {
    const limit = AbortSignal.timeout(this.patience);
    let client: RedisClient | undefined;
    try {
      const connecting = this.#connect();
      connecting.then((late) => limit.aborted && late.close()).catch(() => {});
      client = await within(limit, connecting);
      const bell = new Bell(client);
      await within(
        limit,
        client.subscribe(channel, () => bell.ring()),
      );
      const gone = (event: string) => /^(del|expired|evicted|hdel)$/.test(event) && bell.ring();
      // Only where the server is configured so (notify-keyspace-events) and the user may: else the lease's end tells.
      await within(limit, client.subscribe(keys, gone)).catch(() => {});
      return bell;
    } catch (error) {
      client?.close();
      throw this.#failure(error);
    }
  }

  async close(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    (await client?.catch(() => undefined))?.close();
  }

  async #connect(): Promise<RedisClient> {
    const tls = this.#tls === undefined ? {} : { tls: this.#tls };
    const client = new RedisClient(this.#url, {
      autoReconnect: false,
      connectionTimeout: this.patience,
      ...tls,
    });
    await client.connect();
    return client;
  }

  /** The next request makes a new connection: what this one would still answer nobody can tell. */
  #drop(connection: Promise<RedisClient> | undefined): void {
    if (connection === undefined || this.#client !== connection) return;
    this.#client = undefined;
    connection.then((client) => client.close()).catch(() => {});
  }

  #failure(error: unknown): StoreError {
    if (error instanceof StoreError) return error;
    const { code, message, name } = error as Error & { code?: string };
    const text =
      name === "TimeoutError"
        ? "no answer"
        : code === "ERR_REDIS_CONNECTION_CLOSED"
          ? "no connection"
          : this.address.hide(message);
    const said = `${this.address.shown}: ${text}`;
    const refused = code === "ERR_REDIS_SERVER_ERROR" || /^(NOAUTH|WRONGPASS|NOPERM)/.test(message);
    // While it reads its data back in, a server that has been started again answers so.
    if (!refused || /^(LOADING|MASTERDOWN|TRYAGAIN)/.test(message)) return new StoreError(said);
    return new Refused(
      /NOPERM|can't run this command|no permission/i.test(message)
        ? `${said} (docs/stores.md says what it needs)`
        : said,
    );
  }
}

/** Rings at each release of a lock, and once when its connection breaks. */
export class Bell {
  broken = false;
  #next = Promise.withResolvers<void>();

  constructor(private readonly client: RedisClient) {
    client.onclose = () => {
      this.broken = true;
      this.ring();
    };
  }
  ring(): void {
    this.#next.resolve();
  }
  /** The next ring from now on. */
  next(): Promise<void> {
    if (!this.broken) this.#next = Promise.withResolvers();
    return this.#next.promise;
  }
  close(): void {
    this.client.onclose = null;
    this.client.close();
  }
}

/** @throws {TypeError} for a URL that names no Redis; it shows no part of it that may be secret */
function parse(address: Address): URL {
  let url: URL;
  try {
    url = new URL(address.url);
  } catch {
    throw new TypeError(
      `not a URL of Redis: ${address.shown} (are special characters in the password quoted as %XX?)`,
    );
  }
  if (!/^\/?\d*$/.test(url.pathname))
    throw new TypeError(`${address.shown}: a database of Redis is a number`);
  for (const key of url.searchParams.keys()) {
    if (key !== "cacert")
      throw new TypeError(`${address.shown}: unknown parameter '${key}' (there is cacert)`);
  }
  return url;
}
