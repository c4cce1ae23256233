/** A proxy that moves sessions between connections, as ProxySQL and its like do. */

/** COM_QUERY: MySQL Internals, Text Protocol. */
const QUERY = 3;

/** A client, and the server's two connections for it. */
interface Client {
  backends: Promise<Bun.Socket<undefined>>[];
  /** Fires when the second connection is logged in. */
  ready: PromiseWithResolvers<void>;
  /** The client's packets are passed on one after the other. */
  last: Promise<void>;
  login: PromiseWithResolvers<Uint8Array>;
  queries: number;
}

/**
 * Gives each client two connections to the server, and sends its statements to them in turn. The second one is logged in
 * by repeating what the client said to the first: this works for a user without a password.
 */
export class SessionProxy implements Disposable {
  readonly #listener: Bun.TCPSocketListener<Client>;

  constructor(port: number) {
    const hostname = "127.0.0.1";
    const close = (client: Bun.Socket<Client>) => void client.end();
    const first = (client: Bun.Socket<Client>) =>
      Bun.connect<undefined>({
        hostname,
        port,
        socket: { data: (_, bytes) => void client.write(bytes), close: () => close(client) },
      });
    const second = (client: Bun.Socket<Client>) => {
      let answers = 0;
      const data = async (backend: Bun.Socket<undefined>, bytes: Buffer) => {
        answers++; // the first is the greeting, the second the end of the login
        if (answers === 1) backend.write(await client.data.login.promise);
        else if (answers === 2) client.data.ready.resolve();
        else client.write(bytes);
      };
      return Bun.connect<undefined>({ hostname, port, socket: { data, close: () => close(client) } });
    };
    const pass = async ({ data }: Bun.Socket<Client>, bytes: Uint8Array) => {
      const isQuery = bytes[3] === 0 && bytes[4] === QUERY;
      if (isQuery) await data.ready.promise;
      else data.login.resolve(bytes);
      const backend = await data.backends[isQuery ? data.queries++ % 2 : 0]!;
      backend.write(bytes);
    };
    this.#listener = Bun.listen<Client>({
      hostname,
      port: 0,
      socket: {
        open: (client) => {
          client.data = {
            backends: [],
            ready: Promise.withResolvers(),
            last: Promise.resolve(),
            login: Promise.withResolvers(),
            queries: 0,
          };
          client.data.backends.push(first(client), second(client));
        },
        data: (client, bytes) => {
          const copy = bytes.slice();
          client.data.last = client.data.last.then(() => pass(client, copy));
        },
        close: async ({ data }) => {
          for (const backend of data?.backends ?? []) (await backend).end();
        },
        error: () => {},
      },
    });
  }

  get port(): number {
    return this.#listener.port;
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
  }
}
