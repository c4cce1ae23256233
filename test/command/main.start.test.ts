/** The start of the binary: what must be done before the engine starts a thread. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { command } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

const linux = process.platform === "linux" && required("strace", "strace");

// A thread started without our mask consumes SIGCHLD, which is ignored by default, and the wrapper misses it. The engine
// starts its first thread at 64 heap blocks. Here the limit is lower: the test fails before a start that needs more of
// the heap would reach it.
test.if(linux)("signals are blocked before the engine starts a thread, with room to spare", async () => {
  using dir = new TempDir();
  const trace = ["strace", "-o", dir.file("trace"), "-e", "trace=clone3,clone,rt_sigprocmask"];
  const env = { BUN_JSC_warmUpMarkedBlockStartAfterBlocks: "57" };
  const { status } = await command([...trace, binary, "run", "start", "true"], { dir, env });
  expect(status).toBe(0);
  const calls = readFileSync(dir.file("trace"), "utf8").split("\n");
  const blocked = calls.findIndex((call) => /^rt_sigprocmask\(SIG_BLOCK, ~\[PWR SYS RTMIN/.test(call));
  const thread = calls.findIndex((call) => call.includes("CLONE_THREAD"));
  expect(blocked).toBeGreaterThanOrEqual(0);
  expect(thread).toBeGreaterThan(blocked);
});
