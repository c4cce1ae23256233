/** Sockets of our own, with the server's certificate and its name checked. */
import type { Socket } from "node:net";

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
