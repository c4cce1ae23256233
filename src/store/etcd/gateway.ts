/**
 * A client of etcd's v3 API over its JSON gateway, at several endpoints.
 *
 * In this JSON, 64-bit integers are strings, bytes are base64, and fields with their default value are absent.
 */
import { StoreError, WrongArgument } from "../../errors.ts";
import { connectionErrorInWords } from "../socket.ts";
import type { StoreUrl } from "../store-url.ts";
import { limited } from "../time-limit.ts";
import { type Answer, Http } from "./http.ts";

/** No endpoint answers, or every answer means that etcd is unavailable. */
export class Unreachable extends StoreError {
  constructor(message: string, cause?: unknown) {
    super(message, { temporary: true, cause });
  }
}

/** The time for an endpoint to answer, in milliseconds: a short one where another endpoint may answer instead. */
const ONE_OF_MANY_MS = 3000;
const ATTEMPT_MS = 10_000;
const DEFAULT_PORT = 2379;
const DEFAULT_PREFIX = "exclusive";

/** The server has no leader, is overloaded or is stopping: gRPC status codes, grpc/status_code.h. */
const UNAVAILABLE = [4, 8, 14];
const NOT_FOUND = 5;
const UNAUTHENTICATED = 16;

const PARAMETERS = ["cacert", "cert", "key"];
const SHAPE = /^etcds?:\/\/(?:(.*)@)?([^/?#@]+)(?:\/([^?#]*))?(?:\?([^#]*))?$/i;

type Json = Record<string, unknown>;

/** A key and its value in a `RangeResponse`. */
export interface KeyValue {
  key: string;
  value?: string;
  create_revision: string;
}

/** The answer to `kv/range`. `kvs` is absent when no key was found. */
export interface RangeResponse {
  header: { revision: string };
  kvs?: KeyValue[];
}

export const base64 = (text: string): string => Buffer.from(text).toString("base64");
export const fromBase64 = (text: string | undefined): string => Buffer.from(text ?? "", "base64").toString();

/** The fields of a request for all keys with this prefix, which ends in "/". */
export function withPrefix(prefix: string): { key: string; range_end: string } {
  const end = Buffer.from(prefix);
  end[end.length - 1]! += 1;
  return { key: base64(prefix), range_end: end.toString("base64") };
}

/** Sends requests to the endpoint that answered last, and to the next one when it fails. */
export class Gateway {
  /** The prefix of all keys. It ends in "/". */
  readonly prefix: string;
  readonly #endpoints: string[];
  readonly #user: { name: string; password: string } | undefined;
  readonly #http: Http;
  #current = 0;
  #token: Promise<string> | undefined;

  /**
   * @param url `etcd://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/PREFIX]`; `etcds://` with TLS, and then also
   *   `?cacert=FILE&cert=FILE&key=FILE`, as the options of etcdctl
   * @throws {TypeError} for another URL
   */
  constructor(private readonly url: StoreUrl) {
    const [, user, hosts, path, query] = SHAPE.exec(url.url) ?? [];
    if (hosts === undefined)
      throw new WrongArgument("a store in etcd is a URL such as etcd://HOST:2379,HOST:2379/PREFIX");
    const secure = url.scheme === "etcds";
    this.#endpoints = hosts.split(",").map((host) => {
      const port = /:\d+$/.test(host) ? "" : `:${DEFAULT_PORT}`;
      const endpoint = `${secure ? "https" : "http"}://${host}${port}`;
      if (!URL.canParse(endpoint)) throw new WrongArgument(`not a host: '${host}' in ${url.redacted}`);
      return endpoint;
    });
    this.prefix = `${decodeURIComponent(path ?? "").replace(/\/+$/, "") || DEFAULT_PREFIX}/`;
    if (user !== undefined) {
      const [name = "", password = ""] = user.split(/:(.*)/s);
      this.#user = { name: decodeURIComponent(name), password: decodeURIComponent(password) };
    }
    const parameters = new URLSearchParams(query);
    for (const name of parameters.keys()) {
      if (!PARAMETERS.includes(name))
        throw new WrongArgument(`${url.redacted}: no parameter '${name}' (${PARAMETERS.join(", ")})`);
      if (!secure) throw new WrongArgument(`${url.redacted}: '${name}' needs TLS: say etcds://`);
    }
    const file = (name: string) => {
      const path = parameters.get(name);
      return path === null ? undefined : Bun.file(path);
    };
    this.#http = new Http(secure ? { ca: file("cacert"), cert: file("cert"), key: file("key") } : undefined);
  }

  /** The endpoint that answered last. */
  get endpoint(): string {
    return this.#endpoints[this.#current]!;
  }
  /** The number of endpoints. */
  get size(): number {
    return this.#endpoints.length;
  }

  /**
   * Asks the endpoints in turn until one answers.
   * @param limit the time for each, in milliseconds; `Infinity` for a request that waits in the server
   * @returns undefined when etcd does not find the object of the request, such as a lease
   * @throws {Unreachable} when no endpoint answers
   * @throws {StoreError} when etcd refuses the request
   */
  async call<T = Json>(
    method: string,
    body: Json,
    signal?: AbortSignal,
    limit = this.size > 1 ? ONE_OF_MANY_MS : ATTEMPT_MS,
  ): Promise<T | undefined> {
    let failure: unknown;
    for (let attempt = 0; attempt < this.size; attempt++) {
      const endpoint = this.endpoint;
      try {
        const ask = (stop: AbortSignal) => this.#post(endpoint, method, body, stop);
        const { result, ...answer } = Number.isFinite(limit)
          ? await limited(limit, ask, signal)
          : await ask(signal ?? new AbortController().signal);
        return (result ?? answer) as T;
      } catch (error) {
        signal?.throwIfAborted();
        if (error instanceof NotFound) return undefined;
        if (error instanceof StoreError && !(error instanceof Unreachable)) throw error;
        failure = error;
        if (this.endpoint === endpoint) this.#current = (this.#current + 1) % this.size;
      }
    }
    throw this.#unreachable(failure);
  }

  /**
   * Watches keys until one of them is deleted, or etcd ends the watch.
   * @param start the first revision to look at
   * @param ondeleted receives the deleted keys; the watch goes on unless it returns false
   */
  async watchDeletion(
    keys: Json,
    start: string | undefined,
    ondeleted: (keys: string[]) => boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const create_request = { ...keys, start_revision: start, filters: ["NOPUT"] };
    const over = new AbortController();
    let text = "";
    const read = (part: string) => {
      const lines = (text + part).split("\n");
      text = lines.pop()!;
      for (const line of lines.filter((line) => line.trim() !== "")) {
        const { result, error } = JSON.parse(line) as {
          result?: { events?: { kv: { key: string } }[]; canceled?: boolean };
          error?: Json;
        };
        const deleted = result?.events?.map(({ kv }) => kv.key) ?? [];
        if (error !== undefined || result?.canceled || (deleted.length > 0 && !ondeleted(deleted)))
          over.abort();
      }
    };
    await this.#post(
      this.endpoint,
      "watch",
      { create_request },
      AbortSignal.any([signal, over.signal]),
      read,
    ).catch((error: unknown) => {
      if (!over.signal.aborted) throw error;
    });
  }

  /** Closes the connections that are free. */
  close(): void {
    this.#http.close();
  }

  async #post(
    endpoint: string,
    method: string,
    body: Json,
    signal: AbortSignal,
    onpart?: (part: string) => void,
  ): Promise<Json> {
    for (let again = false; ; again = true) {
      const headers: Record<string, string> = {};
      if (this.#user !== undefined) headers.Authorization = await this.#authenticate(endpoint, signal);
      const text = JSON.stringify(body);
      const answer = await this.#http.post(endpoint, `/v3/${method}`, headers, text, signal, onpart);
      const read = this.#read(answer);
      const refusal = answer.status !== 200 ? read : (read.error as Json | undefined);
      if (refusal === undefined) return read;
      if (!mustLogIn(refusal) || this.#user === undefined || again) throw this.#refusal(refusal);
      this.#token = undefined; // expired: a simple token lives for five minutes without use
    }
  }

  #authenticate(endpoint: string, signal: AbortSignal): Promise<string> {
    this.#token ??= (async () => {
      const user = JSON.stringify(this.#user);
      const answer = await this.#http.post(endpoint, "/v3/auth/authenticate", {}, user, signal);
      const read = this.#read(answer);
      if (answer.status !== 200) throw this.#refusal(read);
      return (read as { token: string }).token;
    })().catch((error) => {
      this.#token = undefined;
      throw error;
    });
    return this.#token;
  }

  #read({ status, body }: Answer): Json {
    try {
      return body === "" ? {} : (JSON.parse(body) as Json);
    } catch {
      // The answer of another server, or of an etcd without this gateway.
      return { code: status >= 500 ? UNAVAILABLE[0] : 0, message: `HTTP ${status}` };
    }
  }

  #refusal(error: unknown): StoreError {
    const { code, grpc_code, message, error: text } = error as Json;
    const status = Number(code ?? grpc_code);
    const why = `${this.url.redacted}: ${this.url.redact(String(message ?? text ?? error))}`;
    if (status === NOT_FOUND) return new NotFound(why);
    return UNAVAILABLE.includes(status) ? new Unreachable(why) : new StoreError(why);
  }

  #unreachable(error: unknown): Unreachable {
    if (error instanceof Unreachable) return error;
    const timeout = (error as Error).name === "TimeoutError";
    const words = connectionErrorInWords(error as Error);
    const why = timeout ? "no answer in time" : this.url.redact(words);
    return new Unreachable(`${this.url.redacted}: ${why}`, error);
  }
}

class NotFound extends StoreError {}

/** Does the answer mean that the token is of no more use: expired, or older than a change of the rights? */
const mustLogIn = ({ code, grpc_code, message, error }: Json): boolean =>
  Number(code ?? grpc_code) === UNAUTHENTICATED ||
  /auth.*(token|revision|old)/i.test(String(message ?? error));
