/** Connections to Redis: one for requests, and one for each waiter. The next request replaces a broken connection. */
import { RedisClient } from "bun";
import { StoreError, WrongArgument } from "../../errors.ts";
import type { StoreUrl } from "../store-url.ts";
import { limited } from "../time-limit.ts";
import { whyNoConnection } from "./no-connection.ts";

/** Answers of a server that may soon answer otherwise: it is loading, full, a replica of now or a part of a cluster. */
const TEMPORARY =
  /\b(LOADING|MASTERDOWN|TRYAGAIN|READONLY|CLUSTERDOWN|NOREPLICAS|MISCONF|OOM|BUSY|UNKILLABLE)\b/;

/** A connection for requests, made when it is needed. */
export class Connection {
  /** The number of the database. */
  readonly database: string;
  readonly #target: URL;
  readonly #tls: { ca: Bun.BunFile } | undefined;
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
    this.#target = parsed;
  }

  /**
   * Sends a command, and connects first if necessary.
   * @param signal gives up: the promise is rejected with its reason
   * @throws {StoreError} when the server does not answer, or with an error
   */
  // biome-ignore lint/suspicious/noExplicitAny: the type of a reply depends on the command
  async send(command: string, args: string[] = [], signal?: AbortSignal): Promise<any> {
    let current: Promise<RedisClient> | undefined;
    try {
      return await limited(
        this.timeout,
        async () => {
          current = this.#client ??= this.#connect();
          return (await current).send(command, args);
        },
        signal,
      );
    } catch (error) {
      const failure = signal?.aborted ? undefined : this.#failure(error);
      // After a request that was not answered the connection's state is unknown. A replica's will not change.
      if (failure === undefined || failure.temporary) this.#drop(current);
      throw failure ?? signal!.reason;
    }
  }

  /**
   * Opens another connection, and subscribes to releases.
   * @param channel of our own messages
   * @param keys channels of keyspace notifications, for a server that sends them and a user who may subscribe to them
   * @returns undefined when the user may not subscribe to the channel
   */
  async listen(channel: string, keys: string[], signal?: AbortSignal): Promise<ReleaseListener | undefined> {
    let client: RedisClient | undefined;
    const open = async (limit: AbortSignal) => {
      client = await this.#connect();
      if (limit.aborted) return client.close();
      const listener = new ReleaseListener(client);
      const heard = (message: string, from: string) => {
        if (from === channel || /^(del|expired|evicted|hdel)$/.test(message)) listener.notify();
      };
      // Bun's client settles the first subscription of a connection alone, when the server refuses it.
      for (const channels of [[channel, ...keys], [channel]]) {
        try {
          await client.subscribe(channels, heard);
          return listener;
        } catch (error) {
          if (!isForbidden(error)) throw error;
        }
      }
      client.close();
      return undefined;
    };
    try {
      return (await limited(this.timeout, open, signal)) ?? undefined;
    } catch (error) {
      client?.close();
      throw signal?.aborted ? signal.reason : this.#failure(error);
    }
  }

  async close(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    (await client?.catch(() => undefined))?.close();
  }

  async #connect(): Promise<RedisClient> {
    const tls = this.#tls === undefined ? {} : { tls: this.#tls };
    const client = new RedisClient(this.#target.href, {
      autoReconnect: false,
      connectionTimeout: Math.ceil(this.timeout / 2), // the other half is for the question why
      ...tls,
    });
    try {
      await client.connect();
      return client;
    } catch {
      const { text, temporary } = await whyNoConnection(this.#target, this.#tls, this.timeout / 3);
      throw new StoreError(`${this.url.redacted}: ${this.url.redact(text)}`, { temporary });
    }
  }

  /** Gives up a connection. The next request makes a new one. */
  #drop(connection: Promise<RedisClient> | undefined): void {
    if (connection === undefined || this.#client !== connection) return;
    this.#client = undefined;
    connection.then((client) => client.close()).catch(() => {});
  }

  #failure(error: unknown): StoreError {
    if (error instanceof StoreError) return error;
    const { code, message } = error as Error & { code?: string };
    const broken = code === "ERR_REDIS_CONNECTION_CLOSED";
    const said = `${this.url.redacted}: ${broken ? "the connection has ended" : this.url.redact(message)}`;
    if (/^(MOVED|ASK|CROSSSLOT)\b/.test(message))
      return new StoreError(`${said} (a cluster: locks need a server that is not in cluster mode)`);
    if (/unknown command .?EVAL/i.test(message))
      return new StoreError(
        `${this.url.redacted} does not run scripts, and may be a Sentinel: use the address of the primary server, or a name that follows it`,
      );
    if (isForbidden(error))
      return new StoreError(`${said} (see docs/stores.md for the permissions it needs)`);
    const answered = code === "ERR_REDIS_SERVER_ERROR" || /^(NOAUTH|WRONGPASS)/.test(message);
    return new StoreError(said, { temporary: !answered || TEMPORARY.test(message) });
  }
}

/** Is it the answer of a server whose ACL forbids the request? */
const isForbidden = (error: unknown): boolean =>
  /NOPERM|can't run this command|no permission/i.test((error as Error).message);

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
