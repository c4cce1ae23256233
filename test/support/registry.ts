/** A package registry on this machine, for npm, Bun, pnpm and Yarn. */
import { readFileSync, writeFileSync } from "node:fs";
import { root } from "./paths.ts";
import { command } from "./process.ts";
import { TempDir } from "./temp-dir.ts";

/** Package managers may refuse versions that were published a moment ago. */
const PUBLISHED = "2020-01-01T00:00:00.000Z";

/** Who publishes with `npm publish` has it. */
export const TOKEN = "token";

interface Entry {
  name: string;
  "dist-tags": Record<string, string>;
  time?: Record<string, string>;
  versions: Record<string, object>;
}

interface Attachments {
  _attachments: Record<string, { data: string }>;
}

export class Registry implements Disposable {
  readonly #tarballs = new TempDir();
  readonly #packages = new Map<string, Entry>();
  readonly #server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: (request) => this.#answer(request) });

  readonly url = this.#server.url.href;

  /** Publishes the package in this directory, as it would be packed. Returns the files in it. */
  async publish(directory: string): Promise<string[]> {
    const manifest = JSON.parse(readFileSync(`${directory}/package.json`, "utf8"));
    const { name, version } = manifest;
    const file = `${name.replace("/", "-").replace("@", "")}-${version}.tgz`;
    const pack = ["pm", "pack", "--quiet", "--ignore-scripts", "--gzip-level", "1"];
    const packed = await command([process.execPath, ...pack, "--filename", this.#tarballs.file(file)], {
      cwd: directory,
    });
    if (packed.status !== 0) throw new Error(`cannot pack ${directory}: ${packed.stderr}`);
    const bytes = readFileSync(this.#tarballs.file(file));
    const hash = (algorithm: Bun.SupportedCryptoAlgorithms, encoding: "hex" | "base64") =>
      new Bun.CryptoHasher(algorithm).update(bytes).digest(encoding);
    const dist = {
      tarball: `${this.url}-/${file}`,
      shasum: hash("sha1", "hex"),
      integrity: `sha512-${hash("sha512", "base64")}`,
    };
    this.#packages.set(name, {
      name,
      "dist-tags": { latest: version },
      time: { created: PUBLISHED, modified: PUBLISHED, [version]: PUBLISHED },
      versions: { [version]: { ...manifest, _id: `${name}@${version}`, dist } },
    });
    const listed = await command(["tar", "-tzf", this.#tarballs.file(file)]);
    return listed.stdout.trim().split("\n").sort();
  }

  /** Publishes a package that this project depends on, as it is installed here. */
  async publishDependency(name: string): Promise<void> {
    await this.publish(`${root}/node_modules/${name}`);
  }

  /** The names of the packages, in the order in which they were published, with the tag that each has. */
  get published(): [name: string, tag: string][] {
    return [...this.#packages].map(([name, entry]) => [name, Object.keys(entry["dist-tags"])[0]!]);
  }

  /** What `npm publish` sends: the version, and its tarball in base64. */
  async #receive(request: Request): Promise<Response> {
    if (request.headers.get("authorization") !== `Bearer ${TOKEN}`)
      return new Response("{}", { status: 401 });
    const { name, versions, _attachments, ...rest } = (await request.json()) as Entry & Attachments;
    for (const [file, { data }] of Object.entries(_attachments))
      writeFileSync(this.#tarballs.file(file.replaceAll("/", "-")), Buffer.from(data, "base64"));
    this.#packages.set(name, { name, "dist-tags": rest["dist-tags"], versions });
    return Response.json({ ok: true }, { status: 201 });
  }

  async #answer(request: Request): Promise<Response> {
    const path = decodeURIComponent(new URL(request.url).pathname).slice(1);
    if (request.method === "PUT") return this.#receive(request);
    const tarball = Bun.file(this.#tarballs.file(path.replace("-/", "")));
    if (path.startsWith("-/") && (await tarball.exists())) return new Response(tarball);
    const found = this.#packages.get(path);
    return found === undefined ? new Response("{}", { status: 404 }) : Response.json(found);
  }

  [Symbol.dispose](): void {
    this.#server.stop(true);
    this.#tarballs[Symbol.dispose]();
  }
}
