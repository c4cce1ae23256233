/** Namespaces of their own for the processes of a test. */
import { required } from "./required.ts";

/** Before a command: runs it in a pid namespace of its own, which ends with it. */
export const unshare: readonly string[] = [
  "unshare",
  ...(process.getuid?.() === 0 ? [] : ["--map-root-user"]),
  "--pid",
  "--fork",
  "--kill-child",
  "--mount-proc",
];

/** Does this machine let us do that? */
export const canUnshare = (): boolean =>
  required("unshare", "util-linux") && Bun.spawnSync([...unshare, "true"], { stderr: "ignore" }).success;
