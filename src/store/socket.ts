/** Sockets of our own, with the server's certificate and its name checked. */
import type { Socket } from "node:net";
import { limited } from "./time-limit.ts";

/** The files of a client's TLS. */
export interface Tls {
  ca?: Bun.BunFile | undefined;
  cert?: Bun.BunFile | undefined;
  key?: Bun.BunFile | undefined;
}

/**
 * Connects.
 * @param tls undefined for a connection without TLS
 * @param ready is called when requests can be sent
 */
export async function openSocket(
  host: string,
  port: number,
  tls: Tls | undefined,
  ready: () => void,
): Promise<Socket> {
  if (tls === undefined) return (await import("node:net")).connect({ host, port }, ready);
  const [ca, cert, key] = await Promise.all([tls.ca?.text(), tls.cert?.text(), tls.key?.text()]);
  const { connect } = await import("node:tls");
  const files = { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) };
  return connect({ host, port, servername: /^[\d.:]+$/.test(host) ? "" : host, ...files }, ready);
}

/** An error of a socket, or of the look-up of its host. */
type ConnectionError = Error & { code?: string; hostname?: string };

/** Was no server there to talk to? */
export const isUnreached = ({ code }: ConnectionError): boolean =>
  code === "ECONNREFUSED" || code === "ENOTFOUND" || code === "EAI_AGAIN";

/** What a connection's error says, in words. */
export function connectionErrorInWords({ code, message, hostname }: ConnectionError): string {
  if (code === "ECONNREFUSED") return "connection refused";
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return `unknown host '${hostname}'`;
  if (code === "ECONNRESET") return "it closed the connection without an answer";
  if (code === "EHOSTUNREACH" || code === "ENETUNREACH") return "there is no way to this host";
  return message;
}

/** Time to find out why there is no connection, in milliseconds. */
const WHY_MS = 1000;

/**
 * The error of a client that says no more than that it failed to connect: with the reason, where that can be found out.
 * @param port of a URL without one
 */
export async function explained(error: unknown, { hostname, port }: URL, usual: number): Promise<unknown> {
  if (!(error instanceof Error) || !/^failed to connect/i.test(error.message)) return error;
  const host = hostname.replace(/^\[|\]$/g, "");
  const socket = await openSocket(host, Number(port || usual), undefined, () => {});
  const failed = new Promise<Error>((resolve) => socket.on("error", resolve));
  const reason = await limited(WHY_MS, () => failed).catch(() => undefined);
  socket.destroy();
  if (reason !== undefined) error.message = connectionErrorInWords(reason);
  return error;
}
