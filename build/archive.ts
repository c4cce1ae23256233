/** Makes `exclusive-<version>-<target>.tar.gz`, and `.tar.zst` where there is zstd(1), and `install.sh`, which installs them. */
import { rm } from "node:fs/promises";
import { version } from "../package.json";
import type { TargetName } from "./targets.ts";
import { layOut, sourceDate, tool } from "./tree.ts";

/**
 * @param out the directory that has the binaries, and gets the archives
 * @param level of gzip(1)
 */
export async function buildArchives(out: string, targets: TargetName[], level = 6): Promise<void> {
  for (const target of targets) {
    const name = `exclusive-${version}-${target}`;
    const tar = `${out}/${name}.tar`;
    await layOut(out, target, `${out}/stage/${name}`);
    const same = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", `--mtime=@${sourceDate()}`];
    tool(["tar", ...same, "--format=ustar", "--mode=go-w", "-cf", tar, "-C", `${out}/stage`, name]);
    if (Bun.which("zstd")) tool(["zstd", "-q", "-f", "-T1", `-${level}`, tar]);
    tool(["gzip", "-f", "-n", `-${level}`, tar]);
    await rm(`${out}/stage`, { recursive: true });
  }
  const installer = await Bun.file("build/install.sh").text();
  await Bun.write(`${out}/install.sh`, installer.replace("@VERSION@", version), { mode: 0o755 });
}
