/** Real servers for tests: each on a free port of the loopback address, in a new directory, ended with its scope. */
import { writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { SQL } from "bun";
import { command, Process } from "./process.ts";
import { required } from "./required.ts";
import { TempDir } from "./temp-dir.ts";
import { until } from "./until.ts";

/** A server that a test has started. */
export interface Server extends AsyncDisposable {
  /** The URL for clients. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Kills it, so that it saves nothing. */
  kill(): Promise<void>;
  /** Shuts it down in order. */
  stop(): Promise<void>;
  /** Starts it again on the same port, with the data that it saved. */
  start(): Promise<void>;
}

/** A free port. */
export function freePort(): number {
  using listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  return listener.port;
}

/** A server process that can be ended and started again. */
export abstract class ServerProcess implements Server {
  readonly port = freePort();
  readonly dir = new TempDir();
  #process: Process | undefined;
  abstract readonly url: string;
  /** The command line of the server. */
  protected abstract argv(): string[];
  /** Does the server answer? */
  protected abstract answers(): Promise<boolean>;

  get pid(): number {
    return this.#process!.pid;
  }
  /** The output since the last start. */
  get log(): string {
    return this.#process === undefined ? "" : this.#process.stdout + this.#process.stderr;
  }

  async start(): Promise<void> {
    const server = new Process(this.argv(), { cwd: this.dir.path });
    this.#process = server;
    const what = () => `${server.stdout}${server.stderr}`;
    await until(async () => !server.running || (await this.answers()), "the server to answer", what);
    if (!server.running) throw new Error(`the server did not start: ${what()}`);
  }
  kill(): Promise<void> {
    return this.end("SIGKILL");
  }
  stop(): Promise<void> {
    return this.end("SIGTERM");
  }
  protected async end(signal: NodeJS.Signals): Promise<void> {
    this.#process?.kill(signal);
    await this.#process?.result;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    this.dir[Symbol.dispose]();
  }
}

export const hasRedis = (): boolean => required("redis-server", "redis-server");

export interface RedisOptions {
  /** Keeps its data across restarts, in an append-only file that is written at each change. */
  persistent?: boolean;
  /** Additional arguments of redis-server. */
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
  /** The output of redis-cli for a command. */
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

/** The directory of the newest PostgreSQL server: Debian does not have it in PATH. */
const postgresBin = (): string =>
  Array.from(
    new Bun.Glob("/usr/lib/postgresql/*/bin").scanSync({ cwd: "/", onlyFiles: false, absolute: true }),
  )
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }))
    .at(-1) ?? "/usr/lib/postgresql/bin";

export const hasPostgres = (): boolean => required(join(postgresBin(), "postgres"), "postgresql");

export interface PostgresOptions {
  /** Additional arguments of postgres. */
  args?: string[];
}

/** A real PostgreSQL, with a role `app` that may only log in. */
export class PostgresServer extends ServerProcess {
  readonly #data = this.dir.file("data");
  /** PostgreSQL refuses to run as root. */
  readonly #as =
    process.getuid?.() === 0 ? "setpriv --reuid postgres --regid postgres --clear-groups".split(" ") : [];
  #made = false;

  constructor(private readonly options: PostgresOptions = {}) {
    super();
  }
  get url(): string {
    return `postgres://app:secret%2Fword@127.0.0.1:${this.port}/postgres`;
  }
  /** The URL with the role of a superuser. */
  get adminUrl(): string {
    return `postgres://admin:secret@127.0.0.1:${this.port}/postgres`;
  }
  protected argv(): string[] {
    const settings = ["unix_socket_directories=", "fsync=off", "max_connections=200", "shared_buffers=16MB"];
    const args = ["-D", this.#data, "-h", "127.0.0.1", "-p", String(this.port)];
    args.push(...settings.flatMap((setting) => ["-c", setting]), ...(this.options.args ?? []));
    return [...this.#as, join(postgresBin(), "postgres"), ...args];
  }
  protected async answers(): Promise<boolean> {
    const { status } = await command(["pg_isready", "-q", "-h", "127.0.0.1", "-p", String(this.port)]);
    return status === 0;
  }
  override async start(): Promise<void> {
    if (!this.#made) await this.#make();
    await super.start();
    if (this.#made) return;
    await this.admin("CREATE ROLE app LOGIN PASSWORD 'secret/word'");
    this.#made = true;
  }
  async #make(): Promise<void> {
    if (this.#as.length > 0) await command(["chown", "postgres", this.dir.path]);
    const password = this.dir.file("password");
    writeFileSync(password, "secret\n", { mode: 0o644 });
    const args = [
      "-D",
      this.#data,
      "-U",
      "admin",
      "-A",
      "scram-sha-256",
      `--pwfile=${password}`,
      "-N",
      "--no-locale",
    ];
    const { status, stderr } = await command([...this.#as, join(postgresBin(), "initdb"), ...args]);
    if (status !== 0) throw new Error(`initdb: ${stderr}`);
  }
  /** Starts a standby of this server, with the same data. */
  async standby(): Promise<PostgresServer> {
    const standby = new PostgresServer(this.options);
    if (this.#as.length > 0) await command(["chown", "postgres", standby.dir.path]);
    await this.admin("ALTER ROLE admin REPLICATION");
    const to = ["-D", standby.#data, "-R", "-X", "stream", "-c", "fast", "-N"];
    const { status, stderr } = await command([
      ...this.#as,
      join(postgresBin(), "pg_basebackup"),
      ...to,
      "-d",
      this.adminUrl,
    ]);
    if (status !== 0) throw new Error(`pg_basebackup: ${stderr}`);
    standby.#made = true;
    await standby.start();
    return standby;
  }
  /** Makes a standby the primary server. */
  async promote(): Promise<void> {
    await this.admin("SELECT pg_promote()");
  }
  /** The rows of a statement that the superuser runs. */
  async admin(statement: string): Promise<Record<string, unknown>[]> {
    await using sql = new SQL(this.adminUrl, { max: 1 });
    return await sql.unsafe(statement);
  }
  /** Lets clients use TLS. `used` checks whether the session of an application does. */
  async enableTls(cert: string, key: string): Promise<{ used(application: string): Promise<boolean> }> {
    for (const file of [cert, key]) await command(["cp", file, this.#data]);
    const files = [cert, key].map((file) => join(this.#data, basename(file)));
    await command([...(this.#as.length > 0 ? ["chown", "postgres"] : ["true"]), ...files]);
    await command(["chmod", "600", ...files]);
    const settings = { ssl_cert_file: basename(cert), ssl_key_file: basename(key), ssl: "on" };
    for (const [name, value] of Object.entries(settings))
      await this.admin(`ALTER SYSTEM SET ${name} = '${value}'`);
    await this.admin("SELECT pg_reload_conf()");
    const query = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name =";
    return { used: async (application) => (await this.admin(`${query} '${application}'`))[0]?.ssl === true };
  }
  /** The "fast" shutdown: the usual one waits for every client. */
  override async stop(): Promise<void> {
    await this.end("SIGINT");
  }
  /** Ends all processes of the server without saving anything. */
  override async kill(): Promise<void> {
    await this.end("SIGQUIT");
  }
}

/** Starts a PostgreSQL. */
export async function startPostgres(options?: PostgresOptions): Promise<PostgresServer> {
  const server = new PostgresServer(options);
  await server.start();
  return server;
}

export const hasMariadb = (): boolean => required("/usr/sbin/mariadbd", "mariadb-server");

export interface MariadbOptions {
  /** Additional arguments of mariadbd. */
  args?: string[];
}

/** A real MariaDB, with a user `app` that has the rights of its database, and no others. */
export class MariadbServer extends ServerProcess {
  readonly #data = this.dir.file("data");
  readonly #socket = this.dir.file("socket");
  /** MariaDB refuses to run as root unless it is told to. */
  readonly #as = process.getuid?.() === 0 ? ["--user=root"] : [];
  #made = false;

  constructor(private readonly options: MariadbOptions = {}) {
    super();
  }
  get url(): string {
    return `mysql://app:secret%2Fword@127.0.0.1:${this.port}/app`;
  }
  protected argv(): string[] {
    const where = [`--datadir=${this.#data}`, `--socket=${this.#socket}`, `--port=${this.port}`];
    const settings = ["--bind-address=127.0.0.1", "--max-connections=200", "--innodb-buffer-pool-size=16M"];
    const args = [...this.#as, ...where, ...settings, ...(this.options.args ?? [])];
    return ["/usr/sbin/mariadbd", "--no-defaults", ...args];
  }
  protected async answers(): Promise<boolean> {
    return this.admin("SELECT 1 FROM user LIMIT 1").then(
      () => true,
      () => false,
    );
  }
  override async start(): Promise<void> {
    if (!this.#made) await this.#make();
    await super.start();
    if (this.#made) return;
    await this.admin("CREATE DATABASE app");
    await this.admin("CREATE USER app@'%' IDENTIFIED BY 'secret/word'");
    await this.admin("GRANT ALL ON app.* TO app@'%'");
    this.#made = true;
  }
  async #make(): Promise<void> {
    const args = ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"];
    const make = ["mariadb-install-db", ...args, ...this.#as, `--datadir=${this.#data}`];
    const { status, stdout, stderr } = await command(make);
    if (status !== 0) throw new Error(`mariadb-install-db: ${stdout}${stderr}`);
  }
  /** The rows of a statement that the superuser runs. */
  async admin(statement: string, database = "mysql"): Promise<Record<string, unknown>[]> {
    const url = `mysql://root@localhost/${database}`;
    await using sql = new SQL({ url, adapter: "mysql", database, path: this.#socket, max: 1 });
    return await sql.unsafe(statement);
  }
}

/** Starts a MariaDB. */
export async function startMariadb(options?: MariadbOptions): Promise<MariadbServer> {
  const server = new MariadbServer(options);
  await server.start();
  return server;
}

export const hasEtcd = (): boolean => required("etcd", "etcd-server");

export interface EtcdOptions {
  /** In a cluster: the name of this member, and the port of each peer. */
  member?: string;
  peers?: Map<string, number>;
  /** Additional arguments of etcd. */
  args?: string[];
  /** The files of the certificate and the key, for TLS. */
  tls?: { cert: string; key: string };
}

/** A real etcd of one member. */
export class EtcdServer extends ServerProcess {
  readonly #name: string;
  readonly #peers: Map<string, number>;
  constructor(private readonly options: EtcdOptions = {}) {
    super();
    this.#name = options.member ?? "alone";
    this.#peers = options.peers ?? new Map([[this.#name, freePort()]]);
  }
  get url(): string {
    const { tls } = this.options;
    return `${tls ? "etcds" : "etcd"}://127.0.0.1:${this.port}${tls ? `?cacert=${tls.cert}` : ""}`;
  }
  get #endpoint(): string {
    return `${this.options.tls ? "https" : "http"}://127.0.0.1:${this.port}`;
  }
  protected argv(): string[] {
    const { tls, args = [] } = this.options;
    const peer = (port: number | undefined) => `http://127.0.0.1:${port}`;
    const own = peer(this.#peers.get(this.#name));
    const cluster = Array.from(this.#peers, ([name, port]) => `${name}=${peer(port)}`).join();
    const where = ["--listen-client-urls", this.#endpoint, "--advertise-client-urls", this.#endpoint];
    const peers = [
      "--listen-peer-urls",
      own,
      "--initial-advertise-peer-urls",
      own,
      "--initial-cluster",
      cluster,
    ];
    const rest = ["--data-dir", this.dir.file("data"), "--logger", "zap", "--log-level", "error"];
    const secure = tls ? ["--cert-file", tls.cert, "--key-file", tls.key] : [];
    return ["etcd", "--name", this.#name, ...where, ...peers, ...rest, ...secure, ...args];
  }
  protected async answers(): Promise<boolean> {
    return this.post("maintenance/status", {}).then(
      ({ leader }) => leader !== undefined && leader !== "0",
      () => false,
    );
  }
  /** The answer of the gateway. */
  async post(method: string, body: object): Promise<Record<string, unknown>> {
    const tls = { rejectUnauthorized: false };
    const response = await fetch(`${this.#endpoint}/v3/${method}`, {
      method: "POST",
      body: JSON.stringify(body),
      tls,
    });
    return (await response.json()) as Record<string, unknown>;
  }
  /** The number of requests so far, by gRPC method. */
  async requests(): Promise<Map<string, number>> {
    const text = await (await fetch(`${this.#endpoint}/metrics`)).text();
    const counts = text.matchAll(/^grpc_server_started_total\{grpc_method="(\w+)".*\} (\d+)$/gm);
    return new Map(Array.from(counts, ([, method, count]) => [method!, Number(count)]));
  }
}

/** Several members of one cluster. */
export class EtcdCluster implements AsyncDisposable {
  constructor(readonly members: EtcdServer[]) {}
  get url(): string {
    return `etcd://${this.members.map(({ port }) => `127.0.0.1:${port}`).join()}`;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    for (const member of this.members) await member[Symbol.asyncDispose]();
  }
}

/** Starts a cluster. */
export async function startEtcdCluster(size: number): Promise<EtcdCluster> {
  const peers = new Map(Array.from({ length: size }, (_, i) => [`member${i}`, freePort()]));
  const members = Array.from(peers.keys(), (member) => new EtcdServer({ member, peers }));
  await Promise.all(members.map((member) => member.start()));
  return new EtcdCluster(members);
}

/** Starts an etcd. */
export async function startEtcd(options?: EtcdOptions): Promise<EtcdServer> {
  const server = new EtcdServer(options);
  await server.start();
  return server;
}
