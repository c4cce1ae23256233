/** What archives and packages hold, laid out below a prefix such as `/usr`. */
import { chmod, copyFile, link, mkdir, rm, utimes } from "node:fs/promises";
import { dirname } from "node:path";
import type { TargetName } from "./targets.ts";

/** Where each file is, below the prefix, and its source; the binary has none. `build/install.sh` has the same list. */
export const TREE = {
  "bin/exclusive": undefined,
  "share/man/man1/exclusive.1": "docs/exclusive.1",
  "share/bash-completion/completions/exclusive": "src/command/completions/exclusive.bash",
  "share/zsh/site-functions/_exclusive": "src/command/completions/exclusive.zsh",
  "share/fish/vendor_completions.d/exclusive.fish": "src/command/completions/exclusive.fish",
  "share/doc/exclusive/LICENSE": "LICENSE",
} as const;

/** @param out the directory that has the target's binary */
export async function layOut(out: string, target: TargetName, prefix: string): Promise<void> {
  await rm(prefix, { recursive: true, force: true });
  for (const [path, source] of Object.entries(TREE)) {
    const file = `${prefix}/${path}`;
    await mkdir(dirname(file), { recursive: true });
    await linkOrCopy(source ?? `${out}/exclusive-${target}`, file, source === undefined);
    await chmod(file, source === undefined ? 0o755 : 0o644);
  }
}

/** A binary is large: it is linked where that works. */
export async function linkOrCopy(from: string, to: string, large = true): Promise<void> {
  if (!large) return copyFile(from, to);
  await rm(to, { force: true });
  await link(from, to).catch(() => copyFile(from, to));
}

/** The time of the files, in seconds: that of the commit, so that a second build gives the same bytes. */
export function sourceDate(): number {
  const { SOURCE_DATE_EPOCH } = process.env;
  if (SOURCE_DATE_EPOCH !== undefined) return Number(SOURCE_DATE_EPOCH);
  const git = Bun.spawnSync(["sh", "-c", "git log -1 --format=%ct"], { stderr: "ignore" });
  return Number(git.stdout.toString()) || 315_532_800; // no clone: 1980, the earliest that every format can say
}

/** Gives every file in the directory the source's date, for tools that take the files' own. */
export async function setDates(directory: string): Promise<void> {
  const paths = [...new Bun.Glob("**/*").scanSync({ cwd: directory, onlyFiles: false, dot: true })];
  for (const path of paths) await utimes(`${directory}/${path}`, sourceDate(), sourceDate());
}

/** Runs a tool of the system. @throws where it fails, with what it said */
export function tool(argv: string[], options: { env?: Record<string, string>; cwd?: string } = {}): void {
  const { success, stderr } = Bun.spawnSync(argv, {
    stdout: "ignore",
    stderr: "pipe",
    ...options,
    env: { ...process.env, ...options.env },
  });
  if (!success) throw new Error(`${argv.join(" ")}: ${stderr}`);
}

/** Writes `SHA256SUMS` of all that a release publishes, as sha256sum(1) checks it. */
export async function writeSums(out: string): Promise<void> {
  let sums = "";
  const files = [...new Bun.Glob("{exclusive-*,exclusive.rb,install.sh}").scanSync(out)];
  for (const file of files.sort()) {
    if (file.endsWith(".tmp")) continue; // a build at the same time
    const hash = new Bun.CryptoHasher("sha256").update(await Bun.file(`${out}/${file}`).bytes());
    sums += `${hash.digest("hex")}  ${file}\n`;
  }
  await Bun.write(`${out}/SHA256SUMS`, sums);
}
