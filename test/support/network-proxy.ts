/** A network between a client and a server that can fail. */

/** What happens to bytes in one direction. */
type Flow = "pass" | "hold";

/** The two ends of a connection, and what is held back in each direction. */
interface Pair {
  client: Bun.Socket<unknown>;
  server: Bun.Socket<unknown> | undefined;
  up: Uint8Array[];
  down: Uint8Array[];
}

/** A TCP proxy that stands for the network: it can be cut, and can hold back one direction or both. */
export class NetworkProxy implements Disposable {
  readonly #listener: Bun.TCPSocketListener<Pair>;
  readonly #pairs = new Set<Pair>();
  #up: Flow = "pass";
  #down: Flow = "pass";
  /** Milliseconds by which each answer is delayed. */
  delay = 0;

  constructor(private readonly target: number) {
    const close = (pair: Pair) => {
      this.#pairs.delete(pair);
      pair.client.end();
      pair.server?.end();
    };
    this.#listener = Bun.listen<Pair>({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        open: (client) => {
          const pair: Pair = { client, server: undefined, up: [], down: [] };
          client.data = pair;
          this.#pairs.add(pair);
          Bun.connect({
            hostname: "127.0.0.1",
            port: this.target,
            socket: {
              open: (server) => {
                pair.server = server;
                this.#flush();
              },
              data: (_, bytes) => {
                const late = () => {
                  pair.down.push(bytes.slice());
                  this.#flush();
                };
                if (this.delay > 0) setTimeout(late, this.delay);
                else late();
              },
              close: () => close(pair),
              error: () => close(pair),
              connectError: () => close(pair),
            },
          }).catch(() => close(pair));
        },
        data: (client, bytes) => {
          client.data.up.push(bytes.slice());
          this.#flush();
        },
        close: (client) => {
          if (client.data) close(client.data);
        },
        error: () => {},
      },
    });
  }

  get port(): number {
    return this.#listener.port;
  }

  /** Lets nothing through in this direction. Connections stay open, as with a cable that was pulled. */
  hold(direction: "up" | "down" | "both"): void {
    if (direction !== "down") this.#up = "hold";
    if (direction !== "up") this.#down = "hold";
  }

  /** Lets everything through again, what was held back first. */
  pass(): void {
    this.#up = this.#down = "pass";
    this.delay = 0;
    this.#flush();
  }

  /** Ends all connections. */
  cut(): void {
    for (const { client, server } of this.#pairs) {
      client.terminate();
      server?.terminate();
    }
  }

  #flush(): void {
    for (const pair of this.#pairs) {
      if (this.#up === "pass" && pair.server) for (const bytes of pair.up.splice(0)) pair.server.write(bytes);
      if (this.#down === "pass") for (const bytes of pair.down.splice(0)) pair.client.write(bytes);
    }
  }

  [Symbol.dispose](): void {
    this.cut();
    this.#listener.stop(true);
  }
}
