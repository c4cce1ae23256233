/** The wrapper's wait for the end of its command. */
import { expect, test } from "bun:test";
import { binary, root } from "../../support/paths.ts";
import { command, Process } from "../../support/process.ts";
import { required } from "../../support/required.ts";
import { TempDir } from "../../support/temp-dir.ts";

const here =
  process.platform === "linux" &&
  [required("strace", "strace"), required("gcc", "gcc libc6-dev")].every(Boolean);

test.if(here)(
  "a SIGCHLD that another thread consumes delays the end of a run by a second, and no more",
  async () => {
    using dir = new TempDir();
    const thief = dir.file("thief.so");
    const compiled = await command([
      "gcc",
      "-shared",
      "-fPIC",
      "-o",
      thief,
      `${root}/test/fixtures/signal-thief.c`,
    ]);
    expect(compiled).toMatchObject({ status: 0, stderr: "" });
    // The command ends while the wrapper is on its way into sigtimedwait(2): the kernel gives SIGCHLD to the thief.
    const delay = [
      "strace",
      "-qq",
      "-o",
      "/dev/null",
      "-e",
      "inject=rt_sigtimedwait:delay_enter=500000:when=1",
    ];
    const wrapped = [binary, "run", "t", "--", "sh", "-c", "sleep 0.1; exit 7"];
    const begin = Bun.nanoseconds();
    await using wrapper = new Process([...delay, "-E", `LD_PRELOAD=${thief}`, ...wrapped], { dir });
    const result = await Promise.race([wrapper.result, Bun.sleep(20_000)]);
    expect(result).toEqual({ status: 7, signal: null, stdout: "", stderr: "" });
    // Less would mean that the signal was not lost.
    expect((Bun.nanoseconds() - begin) / 1e6).toBeWithin(1500, 15_000);
  },
);
