/** A release of this machine's binary, made in a directory of its own. */
import { linkSync, mkdirSync } from "node:fs";
import type { TargetName } from "../../build/targets.ts";
import { linkOrCopy } from "../../build/tree.ts";
import { binary } from "./paths.ts";

/** The target that this machine runs, with glibc. */
export const here =
  `${process.platform === "darwin" ? "macos" : process.platform}-${process.arch}` as TargetName;

/** Puts the binary where the build looks for it. */
export async function prepareRelease(out: string): Promise<void> {
  mkdirSync(out, { recursive: true });
  await linkOrCopy(binary, `${out}/exclusive-${here}`);
}

/** A second name for a file, as a mirror would have it. */
export const alsoAt = (file: string, directory: string) =>
  linkSync(file, `${directory}/${file.split("/").at(-1)}`);
