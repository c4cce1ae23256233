/** Finds out why there is no connection to Redis. Bun's client says only that it was closed. */

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
  tls: { ca: Bun.BunFile } | undefined,
  limit: number,
): Promise<Reason> {
  const secure = protocol === "rediss:";
  const host = hostname.replace(/^\[|\]$/g, "");
  const answer = Promise.withResolvers<Reason>();
  const timer = setTimeout(() => answer.resolve(away("no answer")), limit);
  const command = (...words: string[]) =>
    `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`;
  const user = decodeURIComponent(username);
  const secret = decodeURIComponent(password);
  const login = password === "" ? "" : command("AUTH", ...(user === "" ? [] : [user]), secret);
  const silent = secure
    ? away("it closed the connection")
    : away("it closed the connection without an answer (if it wants TLS: rediss://)");
  const untrusted = (error: Error | null) => {
    if (error) answer.resolve(refused(`no TLS with it: ${error.message}`));
  };
  const connecting = Bun.connect({
    hostname: host,
    port: Number(port || 6379),
    ...(secure && { tls: { ...tls, rejectUnauthorized: true, serverName: host } }),
    socket: {
      open: (opened) => void (secure || opened.write(login + command("PING"))),
      handshake: (opened, _, error) => {
        untrusted(error as Error | null);
        opened.write(login + command("PING"));
      },
      data: (_, bytes) => answer.resolve(reasonOf(bytes.toString("latin1"))),
      error: (_, error) =>
        answer.resolve(secure ? refused(`no TLS with it: ${error.message}`) : away(error.message)),
      close: () => answer.resolve(silent),
    },
  });
  connecting.catch((error: Error & { code?: string }) => {
    const { code, message } = error;
    const unknown = /ENOTFOUND|DNS|getaddrinfo/i.test(`${code} ${message}`);
    answer.resolve(
      away(code === "ECONNREFUSED" ? "connection refused" : unknown ? `unknown host '${host}'` : message),
    );
  });
  const reason = await answer.promise;
  clearTimeout(timer);
  connecting.then((socket) => socket.terminate()).catch(() => {});
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
