/** libfaketime: another wall clock for a process that a test starts. */
import { existsSync } from "node:fs";
import { required } from "./required.ts";

const LIBRARY = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
  .map((dir) => `${dir}/faketime/libfaketime.so.1`)
  .find(existsSync);

export const hasFakeTime =
  process.platform === "linux" && required("faketime", "faketime") && LIBRARY !== undefined;

/** The environment of a process whose wall clock differs; the clocks that cannot be set stay as they are. */
export const FAKE_TIME = { LD_PRELOAD: LIBRARY, FAKETIME_DONT_FAKE_MONOTONIC: "1" };
