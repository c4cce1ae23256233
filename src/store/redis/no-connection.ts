/** Finds out why there is no connection to Redis. Bun's client says only that it was closed. */

import { connectionErrorInWords, isUnreached, openSocket, type Tls } from "../socket.ts";

/** A reason, and whether another attempt may succeed. */
interface Reason {
  text: string;
  temporary: boolean;
}

const away = (text: string): Reason => ({ text, temporary: true });
const refused = (text: string): Reason => ({ text, temporary: false });

/** Connects as the client does, and reads the server's own words. */
export async function whyNoConnection(
  { protocol, hostname, port, username, password }: URL,
  tls: Tls | undefined,
  limit: number,
): Promise<Reason> {
  const secure = protocol === "rediss:";
  const host = hostname.replace(/^\[|\]$/g, "");
  const answer = Promise.withResolvers<Reason>();
  const timer = setTimeout(
    () => answer.resolve(away(secure ? "no answer (if it has no TLS: redis://)" : "no answer")),
    limit,
  );
  const command = (...words: string[]) =>
    `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`;
  const user = decodeURIComponent(username);
  const secret = decodeURIComponent(password);
  const login = password === "" ? "" : command("AUTH", ...(user === "" ? [] : [user]), secret);
  const silent = secure
    ? away("it closed the connection")
    : away("it closed the connection without an answer (if it wants TLS: rediss://)");
  // The password is sent to a server with a good certificate only: openSocket checks it.
  const connecting = openSocket(host, Number(port || 6379), secure ? (tls ?? {}) : undefined, () => {
    connecting.then((socket) => socket.write(login + command("PING")));
  });
  const failed = (error: Error & { code?: string }) => {
    const isTls = secure && !isUnreached(error);
    answer.resolve(isTls ? refused(`no TLS with it: ${error.message}`) : away(connectionErrorInWords(error)));
  };
  connecting
    .then((socket) => {
      socket.on("data", (bytes) => answer.resolve(reasonOf(bytes.toString("latin1"))));
      socket.on("error", failed).on("close", () => answer.resolve(silent));
    })
    .catch(failed);
  const reason = await answer.promise;
  clearTimeout(timer);
  connecting.then((socket) => socket.destroy()).catch(() => {});
  return reason;
}

/** The reason in the first line of an answer. */
function reasonOf(answer: string): Reason {
  const [line = ""] = answer.split("\r\n");
  if (/^-(NOAUTH|WRONGPASS|NOPERM|ERR.*(AUTH|password))/i.test(line)) return refused(line.slice(1));
  if (line.startsWith("-")) return away(line.slice(1));
  if (line.startsWith("+")) return away("the connection has ended");
  return refused("it does not speak the protocol of Redis");
}
