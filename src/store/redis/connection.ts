/** Connections to Redis: one for requests, and one for each waiter. The next request replaces a broken connection. */
import { RedisClient } from "bun";
import { StoreError, WrongArgument } from "../../errors.ts";
import { within } from "../lease.ts";
import type { StoreUrl } from "../store-url.ts";

/** The server answered with an error that a retry would repeat. */
export class Refused extends StoreError {}

/** A connection for requests, made when it is needed. */
export class Connection {
  /** The number of the database. */
  readonly database: string;
  readonly #connectUrl: string;
  readonly #tls: Bun.TLSOptions | undefined;
  #client: Promise<RedisClient> | undefined;

  /**
   * @param timeout for each answer, in milliseconds
   * @throws {TypeError} for a malformed URL
   */
  constructor(
    private readonly url: StoreUrl,
    private readonly timeout: number,
  ) {
    const parsed = parse(url);
    this.database = parsed.pathname.slice(1) || "0";
    const ca = parsed.searchParams.get("cacert");
    this.#tls = ca === null ? undefined : { ca: Bun.file(ca) };
    parsed.search = "";
    this.#connectUrl = parsed.href;
  }

  /**
   * Sends a command, and connects first if necessary.
   * @throws {Refused} when the server answers with an error
   * @throws {StoreError} when it does not answer
   */
  // biome-ignore lint/suspicious/noExplicitAny: the type of a reply depends on the command
  async send(command: string, ...args: string[]): Promise<any> {
    const limit = AbortSignal.timeout(this.timeout);
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
   * Opens another connection, and subscribes to releases.
   * @param channel of our own messages
   * @param keys channels of keyspace notifications
   */
  async listen(channel: string, keys: string[]): Promise<ReleaseListener> {
    const limit = AbortSignal.timeout(this.timeout);
    let client: RedisClient | undefined;
    try {
      const connecting = this.#connect();
      connecting.then((late) => limit.aborted && late.close()).catch(() => {});
      client = await within(limit, connecting);
      const listener = new ReleaseListener(client);
      await within(
        limit,
        client.subscribe(channel, () => listener.notify()),
      );
      const gone = (event: string) => /^(del|expired|evicted|hdel)$/.test(event) && listener.notify();
      // Works only where the server sends them (notify-keyspace-events) and the user may subscribe. Elsewhere a waiter
      // notices a deleted key when the lease ends.
      await within(limit, client.subscribe(keys, gone)).catch(() => {});
      return listener;
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
    const client = new RedisClient(this.#connectUrl, {
      autoReconnect: false,
      connectionTimeout: this.timeout,
      ...tls,
    });
    await client.connect();
    return client;
  }

  /** Gives up a connection, whose state is unknown after a failed request. The next request makes a new one. */
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
          : this.url.redact(message);
    const said = `${this.url.redacted}: ${text}`;
    const refused = code === "ERR_REDIS_SERVER_ERROR" || /^(NOAUTH|WRONGPASS|NOPERM)/.test(message);
    // A restarted server answers so while it loads its data.
    if (!refused || /^(LOADING|MASTERDOWN|TRYAGAIN)/.test(message)) return new StoreError(said);
    return new Refused(
      /NOPERM|can't run this command|no permission/i.test(message)
        ? `${said} (docs/stores.md says what it needs)`
        : said,
    );
  }
}

/** Reports each release of a lock, and the end of its own connection. */
export class ReleaseListener {
  /** True when the connection has ended: no release will be reported any more. */
  broken = false;
  #next = Promise.withResolvers<void>();

  constructor(private readonly client: RedisClient) {
    client.onclose = () => {
      this.broken = true;
      this.notify();
    };
  }
  notify(): void {
    this.#next.resolve();
  }
  /** Resolves with the next report from now on. */
  next(): Promise<void> {
    if (!this.broken) this.#next = Promise.withResolvers();
    return this.#next.promise;
  }
  close(): void {
    this.client.onclose = null;
    this.client.close();
  }
}

/** @throws {TypeError} for a malformed URL. The message contains no secret. */
function parse({ url, redacted }: StoreUrl): URL {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw new WrongArgument(
      `not a URL of Redis: ${redacted} (are special characters in the password quoted as %XX?)`,
    );
  }
  if (!/^\/?\d*$/.test(parsed.pathname))
    throw new WrongArgument(`${redacted}: a database of Redis is a number`);
  for (const key of parsed.searchParams.keys()) {
    if (key !== "cacert")
      throw new WrongArgument(`${redacted}: unknown parameter '${key}' (there is cacert)`);
  }
  return parsed;
}
