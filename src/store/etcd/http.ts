/**
 * A client of HTTP/1.1, as far as etcd's gateway needs it. It has connections of its own, because `fetch` sends 256
 * requests at a time for the whole program: locks that wait, or slow requests of the application, would keep a renewal
 * back until its lock is lost.
 */
import type { Socket } from "node:net";
import { openSocket, type Tls } from "../socket.ts";

/** A complete answer. */
export interface Answer {
  status: number;
  body: string;
}

/** Connections that are free, by endpoint. */
export class Http {
  readonly #free = new Map<string, Socket[]>();

  constructor(private readonly tls: Tls | undefined) {}

  /**
   * Sends a request, on a connection that is free or a new one.
   * @param onpart receives each part of a streamed body
   */
  async post(
    endpoint: string,
    path: string,
    headers: Record<string, string>,
    body: string,
    signal: AbortSignal,
    onpart?: (part: string) => void,
  ): Promise<Answer> {
    const { hostname, port, host, protocol } = new URL(endpoint);
    const head = { Host: host, "Content-Type": "application/json", ...headers };
    const lines = Object.entries(head).map(([name, value]) => `${name}: ${value}\r\n`);
    const request = `POST ${path} HTTP/1.1\r\n${lines.join("")}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
    for (;;) {
      signal.throwIfAborted();
      const reused = this.#free.get(endpoint)?.pop();
      reused?.removeAllListeners();
      const exchange = new Exchange(onpart);
      const open = (ready: () => void) =>
        openSocket(
          hostname.replace(/^\[|\]$/g, ""),
          Number(port || (protocol === "https:" ? 443 : 80)),
          this.tls,
          ready,
        );
      try {
        const socket = await exchange.run(request, signal, reused, open);
        if (socket !== undefined) this.#keep(endpoint, socket);
        return exchange.answer;
      } catch (error) {
        // The server may have closed a connection that was free.
        if (reused === undefined || exchange.begun || signal.aborted) throw error;
      }
    }
  }

  /** Closes the connections that are free. */
  close(): void {
    for (const socket of Array.from(this.#free.values()).flat()) socket.destroy();
    this.#free.clear();
  }

  #keep(endpoint: string, socket: Socket): void {
    const free = this.#free.get(endpoint) ?? [];
    this.#free.set(endpoint, free);
    free.push(socket);
    socket.unref(); // it keeps no program running
    const forget = () => {
      const i = free.indexOf(socket);
      if (i >= 0) free.splice(i, 1);
    };
    socket.on("close", forget).on("error", forget);
  }
}

/** One request and its answer. */
class Exchange {
  readonly answer: Answer = { status: 0, body: "" };
  /** The answer has begun. */
  begun = false;
  #rest: Buffer = Buffer.alloc(0);
  #parts: Buffer[] = [];
  /** Bytes of the body; undefined for a body in chunks. */
  #length: number | undefined;
  #keepAlive = true;
  #over = false;

  constructor(private readonly onpart: ((part: string) => void) | undefined) {}

  /** @returns the connection, if it can be used again */
  async run(
    request: string,
    signal: AbortSignal,
    reused: Socket | undefined,
    open: (ready: () => void) => Promise<Socket>,
  ): Promise<Socket | undefined> {
    const ready = Promise.withResolvers<void>();
    const done = Promise.withResolvers<void>();
    done.promise.catch(() => {});
    const socket = reused ?? (await open(ready.resolve));
    socket.ref();
    const giveUp = () => done.reject(signal.reason);
    const data = (bytes: Buffer) => {
      try {
        if (this.#feed(bytes)) done.resolve();
      } catch (error) {
        done.reject(error);
      }
    };
    const closed = () => done.reject(new Error("the connection has ended"));
    signal.addEventListener("abort", giveUp, { once: true });
    socket.on("data", data).on("error", done.reject).on("close", closed);
    try {
      if (signal.aborted) giveUp();
      if (reused === undefined) await Promise.race([ready.promise, done.promise]);
      socket.write(request);
      await done.promise;
    } catch (error) {
      socket.on("error", () => {}).destroy();
      throw error;
    } finally {
      signal.removeEventListener("abort", giveUp);
      socket.off("data", data).off("error", done.reject).off("close", closed);
    }
    this.answer.body = Buffer.concat(this.#parts).toString();
    if (this.#keepAlive) return socket;
    socket.on("error", () => {}).destroy();
    return undefined;
  }

  /** @returns true when the answer is complete */
  #feed(bytes: Buffer): boolean {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    if (!this.begun && !this.#head()) return false;
    if (this.#length !== undefined) {
      if (this.#rest.length < this.#length) return false;
      this.#part(this.#rest.subarray(0, this.#length));
      return true;
    }
    while (this.#chunk());
    return this.#over;
  }

  #head(): boolean {
    const end = this.#rest.indexOf("\r\n\r\n");
    if (end < 0) return false;
    const head = this.#rest.subarray(0, end).toString("latin1");
    const [, status] = /^HTTP\/1\.[01] (\d{3})/.exec(head) ?? [];
    if (status === undefined) throw new Error("it does not speak HTTP");
    this.answer.status = Number(status);
    this.begun = true;
    this.#rest = this.#rest.subarray(end + 4);
    this.#keepAlive = !/^connection: *close/im.test(head);
    if (!/^transfer-encoding: *chunked/im.test(head))
      this.#length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0);
    return true;
  }

  /** Takes a chunk off. @returns false when there is none yet */
  #chunk(): boolean {
    const end = this.#rest.indexOf("\r\n");
    if (end < 0 || this.#over) return false;
    const size = Number.parseInt(this.#rest.subarray(0, end).toString("latin1"), 16);
    const next = end + 2 + size + 2;
    if (this.#rest.length < next) return false;
    this.#part(this.#rest.subarray(end + 2, end + 2 + size));
    this.#rest = this.#rest.subarray(next);
    this.#over = size === 0;
    return true;
  }

  #part(bytes: Buffer): void {
    if (this.onpart) this.onpart(bytes.toString());
    else this.#parts.push(bytes);
  }
}
