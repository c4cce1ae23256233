/** A certificate for servers with TLS. */
import { join } from "node:path";
import { command } from "./process.ts";
import type { TempDir } from "./temp-dir.ts";

/** Creates a self-signed certificate for 127.0.0.1. */
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
