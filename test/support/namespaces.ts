/** Runs processes of a test in a new pid namespace. */
import { required } from "./required.ts";

/** A prefix for a command: runs it in a new pid namespace, which ends with it. */
export const unshare: readonly string[] = [
  "unshare",
  ...(process.getuid?.() === 0 ? [] : ["--map-root-user"]),
  "--pid",
  "--fork",
  "--kill-child",
  "--mount-proc",
];

/** Does this machine permit that? */
export const canUnshare = (): boolean =>
  required("unshare", "util-linux") && Bun.spawnSync([...unshare, "true"], { stderr: "ignore" }).success;

/** May tests mount file systems, in a mount namespace of their own? */
export const canMount: boolean =
  process.platform === "linux" &&
  process.getuid?.() === 0 &&
  required("unshare", "util-linux") &&
  Bun.spawnSync(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], { stderr: "ignore" }).success;
if (!canMount) console.warn("skipped: tests that need to mount a file system");
