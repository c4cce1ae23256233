/** The start of the binary: what must happen before the engine starts threads. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { command } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

const linux = process.platform === "linux" && required("strace", "strace");

// A thread that was started without our mask consumes SIGCHLD, and the wrapper notices the end of its command late. The
// engine starts its first thread when its heap has 64 blocks. Here it must do so earlier, so that this test fails before
// a start needs too much of the heap.
test.if(linux)("signals are blocked before the engine starts a thread, with room to spare", async () => {
  using dir = new TempDir();
  const trace = ["strace", "-o", dir.file("trace"), "-e", "trace=clone3,clone,rt_sigprocmask"];
  const env = { BUN_JSC_warmUpMarkedBlockStartAfterBlocks: "57" };
  const { status } = await command([...trace, binary, "run", "start", "true"], { dir, env });
  expect(status).toBe(0);
  const calls = readFileSync(dir.file("trace"), "utf8").split("\n");
  const blocked = calls.findIndex((call) => /^rt_sigprocmask\(SIG_BLOCK, ~\[ILL TRAP .* PWR SYS/.test(call));
  const thread = calls.findIndex((call) => call.includes("CLONE_THREAD"));
  expect(blocked).toBeGreaterThanOrEqual(0);
  expect(thread).toBeGreaterThan(blocked);
});
