/**
 * A client of etcd's v3 API over its JSON gateway, at several endpoints.
 *
 * In this JSON, 64-bit integers are strings, bytes are base64, and fields with their default value are absent.
 */
import { StoreError, WrongArgument } from "../../errors.ts";
import type { StoreUrl } from "../store-url.ts";

/** No endpoint answers, or every answer means that etcd is unavailable. */
export class Unreachable extends StoreError {
  /** True if the waiter was already in the queue. */
  queued = false;
}

/** The time for one endpoint to answer, in milliseconds. */
const ATTEMPT_MS = 3000;
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
  readonly #tls: Bun.TLSOptions | undefined;
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
    if (secure) this.#tls = { ca: file("cacert"), cert: file("cert"), key: file("key") };
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
    limit = ATTEMPT_MS,
  ): Promise<T | undefined> {
    let failure: unknown;
    for (let attempt = 0; attempt < this.size; attempt++) {
      const endpoint = this.endpoint;
      const time = Number.isFinite(limit) ? [AbortSignal.timeout(limit)] : [];
      const stop = AbortSignal.any([...time, ...(signal ? [signal] : [])]);
      try {
        const response = await this.#post(endpoint, method, body, stop);
        const { result, error, ...answer } = (await response.json()) as Json;
        if (error !== undefined) throw this.#refusal(error);
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
   * Watches keys until one of them is deleted.
   * @param start the first revision to look at
   * @returns true when a key was deleted, false when etcd has ended the watch
   */
  async watchDeletion(keys: Json, start: string, signal: AbortSignal): Promise<boolean> {
    const create_request = { ...keys, start_revision: start, filters: ["NOPUT"] };
    const response = await this.#post(this.endpoint, "watch", { create_request }, signal);
    const decoder = new TextDecoder();
    let text = "";
    for await (const chunk of response.body!) {
      text += decoder.decode(chunk, { stream: true });
      const lines = text.split("\n");
      text = lines.pop()!;
      for (const line of lines) {
        if (line.trim() === "") continue;
        const { result, error } = JSON.parse(line) as {
          result?: { events?: unknown[]; canceled?: boolean };
          error?: Json;
        };
        if (result?.events) return true;
        if (error !== undefined || result?.canceled) return false;
      }
    }
    return false;
  }

  async #post(endpoint: string, method: string, body: Json, signal: AbortSignal): Promise<Response> {
    for (let again = false; ; again = true) {
      const headers: Record<string, string> = {};
      if (this.#user !== undefined) headers.Authorization = await this.#authenticate(endpoint, signal);
      const response = await this.#fetch(endpoint, method, body, signal, headers);
      if (response.ok) return response;
      const refusal = await this.#read(response);
      const code = (refusal as { code?: number }).code;
      if (code !== UNAUTHENTICATED || this.#user === undefined || again) throw this.#refusal(refusal);
      this.#token = undefined; // expired: a simple token lives for five minutes without use
    }
  }

  #authenticate(endpoint: string, signal: AbortSignal): Promise<string> {
    this.#token ??= (async () => {
      const response = await this.#fetch(endpoint, "auth/authenticate", { ...this.#user }, signal, {});
      if (!response.ok) throw this.#refusal(await this.#read(response));
      return ((await response.json()) as { token: string }).token;
    })().catch((error) => {
      this.#token = undefined;
      throw error;
    });
    return this.#token;
  }

  #fetch(endpoint: string, method: string, body: Json, signal: AbortSignal, headers: Record<string, string>) {
    const init = {
      method: "POST",
      body: JSON.stringify(body),
      headers,
      signal,
      tls: this.#tls,
      redirect: "error",
    };
    // No time limit: a request may wait in the server for as long as the lock is held.
    return fetch(`${endpoint}/v3/${method}`, { ...init, timeout: false } as BunFetchRequestInit);
  }

  async #read(response: Response): Promise<Json> {
    const text = await response.text();
    try {
      return JSON.parse(text) as Json;
    } catch {
      // The answer of another server, or of an etcd without this gateway.
      return { code: response.status >= 500 ? UNAVAILABLE[0] : 0, message: `HTTP ${response.status}` };
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
    const why = timeout ? "no answer in time" : this.url.redact((error as Error).message);
    return new Unreachable(`${this.url.redacted}: ${why}`, { cause: error });
  }
}

class NotFound extends StoreError {}
