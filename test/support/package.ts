/** The package in a project that depends on it. */
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { root } from "./paths.ts";
import { command, exclusive } from "./process.ts";
import type { TempDir } from "./temp-dir.ts";

/** Lets scripts in this directory import the package from its source. `package.test.ts` tests the packed one. */
export function installPackage(dir: TempDir): void {
  const installed = dir.file("node_modules/exclusiveprocess");
  mkdirSync(installed, { recursive: true });
  symlinkSync(`${root}/src`, `${installed}/src`);
  writeFileSync(`${installed}/package.json`, JSON.stringify({ type: "module", exports: "./src/index.ts" }));
}

/** Packs the package as it is published. One test at a time, because packing rebuilds `dist/lib`. Returns the tarball. */
export async function packInto(dir: TempDir): Promise<string> {
  const pack = [process.execPath, "pm", "pack", "--quiet", "--destination", dir.path];
  const result = await exclusive(["run", "--wait", "--quiet", `pack ${root}`, "--", ...pack]);
  if (result.status !== 0) throw new Error(`cannot pack: ${result.stderr}`);
  return dir.file(new Bun.Glob("exclusiveprocess-*.tgz").scanSync(dir.path).next().value!);
}

/** The packed library. Not `dist/lib`, which another test may be making again. */
export async function packedLibrary(dir: TempDir): Promise<string> {
  const unpacked = await command(["tar", "-xzf", await packInto(dir), "-C", dir.path]);
  if (unpacked.status !== 0) throw new Error(`cannot unpack: ${unpacked.stderr}`);
  return dir.file("package/dist/lib");
}

/** Creates a project that depends on the packed package. */
export async function addPackage(dir: string, tarball: string): Promise<void> {
  mkdirSync(dir, { recursive: true });
  writeFileSync(`${dir}/package.json`, JSON.stringify({ name: "app", private: true, type: "module" }));
  const result = await command([process.execPath, "add", tarball], { cwd: dir });
  if (result.status !== 0) throw new Error(`cannot install ${tarball}: ${result.stdout}${result.stderr}`);
}
