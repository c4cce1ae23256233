/** Real servers for tests: each on a free port of loopback, in a directory of its own, gone when the scope ends. */
import { join } from "node:path";
import { command, Process, required, TempDir, until } from "./support.ts";

/** A server that a test has started. */
export interface Server extends AsyncDisposable {
  /** What a client opens. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Ends it without a chance to save anything. */
  kill(): Promise<void>;
  /** Ends it in good order. */
  stop(): Promise<void>;
  /** Starts it again on the same port, with what it had saved. */
  start(): Promise<void>;
}

/** A port on which nobody listened a moment ago. */
export function freePort(): number {
  using listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  return listener.port;
}

/** A server's process: started, ended and started again. */
export abstract class ServerProcess implements Server {
  readonly port = freePort();
  readonly dir = new TempDir();
  #process: Process | undefined;
  abstract readonly url: string;
  /** The command line. */
  protected abstract argv(): string[];
  /** Does it answer? */
  protected abstract answers(): Promise<boolean>;

  get pid(): number {
    return this.#process!.pid;
  }

  async start(): Promise<void> {
    const server = new Process(this.argv(), { cwd: this.dir.path });
    this.#process = server;
    const what = () => `${server.stdout}${server.stderr}`;
    await until(async () => !server.running || (await this.answers()), "the server to answer", what);
    if (!server.running) throw new Error(`the server did not start: ${what()}`);
  }
  async kill(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#process?.result;
  }
  async stop(): Promise<void> {
    this.#process?.kill("SIGTERM");
    await this.#process?.result;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    this.dir[Symbol.dispose]();
  }
}

export const hasRedis = (): boolean => required("redis-server", "redis-server");

export interface RedisOptions {
  /** Keeps what it has across restarts: an append-only file, written at each change. */
  persistent?: boolean;
  /** More arguments of redis-server. */
  args?: string[];
}

/** A real redis-server. */
export class RedisServer extends ServerProcess {
  constructor(private readonly options: RedisOptions = {}) {
    super();
  }
  get url(): string {
    return `redis://127.0.0.1:${this.port}`;
  }
  protected argv(): string[] {
    const keep = this.options.persistent
      ? ["--appendonly", "yes", "--appendfsync", "always"]
      : ["--appendonly", "no"];
    const where = ["--bind", "127.0.0.1", "--port", String(this.port), "--dir", this.dir.path];
    return ["redis-server", ...where, "--save", "", ...keep, ...(this.options.args ?? [])];
  }
  protected async answers(): Promise<boolean> {
    return /PONG|NOAUTH/.test(await this.cli("PING"));
  }
  /** What redis-cli prints for a command. */
  async cli(...args: string[]): Promise<string> {
    const { stdout, stderr } = await command(["redis-cli", "-p", String(this.port), ...args]);
    return `${stdout}${stderr}`.trim();
  }
}

/** Starts a redis-server. */
export async function startRedis(options?: RedisOptions): Promise<RedisServer> {
  const server = new RedisServer(options);
  await server.start();
  return server;
}

/** A certificate for 127.0.0.1 that signs itself, for servers with TLS. */
export async function certificate(dir: TempDir): Promise<{ cert: string; key: string }> {
  const [cert, key] = [join(dir.path, "cert.pem"), join(dir.path, "key.pem")];
  const request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1";
  const { status, stderr } = await command([
    "openssl",
    ...request.split(" "),
    ...["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
  ]);
  if (status !== 0) throw new Error(stderr);
  return { cert, key };
}
