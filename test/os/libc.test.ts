/** The C library is opened by an absolute path: no library from the current directory is ever loaded. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { binary, root } from "../support/paths.ts";
import { command } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

/** Every name by which a C library is known to a loader. */
const PLANTED = [
  ...["libc.so.6", "libc.so", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"],
  ...["ld-musl-x86_64.so.1", "ld-musl-aarch64.so.1", "libSystem.B.dylib", "libc-2.31.so"],
];
const CONSTRUCTOR = `#include <unistd.h>
__attribute__((constructor)) static void planted(void) { write(2, "FROM CWD\\n", 9); }`;

/** Forbids memory that is writable and executable, as systemd's MemoryDenyWriteExecute=yes does: PR_SET_MDWE(2const). */
const NO_JIT = `#include <sys/prctl.h>
#include <unistd.h>
int main(int argc, char **argv) {
  if (prctl(65, 1, 0, 0, 0) != 0) return 99;
  execvp(argv[1], argv + 1);
  return 98;
}`;

const LIBRARY = `import { Lock } from ${JSON.stringify(`${root}/src/index.ts`)};
const holder = new Lock({ name: "planted" }).acquireSync();
const waiting = new Lock({ name: "planted" }).acquire({ timeout: "60s" });
await Bun.sleep(50);
holder.releaseSync();
(await waiting).releaseSync();
console.log("ran");`;

const WATCHER = `import { startChildThread } from ${JSON.stringify(`${root}/src/os/child-process.ts`)};
await new Promise((resolve) => { startChildThread().onmessage = resolve; });
console.log("ran");
process.exit(0);`;

const here = process.platform === "linux" && required("gcc", "gcc");

describe.if(here)("in a directory full of C libraries", () => {
  const tools = new TempDir();
  afterAll(() => tools[Symbol.dispose]());
  const nowx = tools.file("nowx");

  /** Fills a directory with libraries that tell of it when they are loaded. */
  async function plant(dir: TempDir): Promise<void> {
    await Bun.write(tools.file("planted.c"), CONSTRUCTOR);
    for (const name of PLANTED) {
      const made = await command(["gcc", "-shared", "-fPIC", "-o", dir.file(name), tools.file("planted.c")]);
      expect(made).toMatchObject({ status: 0 });
    }
  }

  beforeAll(async () => {
    await Bun.write(tools.file("nowx.c"), NO_JIT);
    expect(await command(["gcc", "-o", nowx, tools.file("nowx.c")])).toMatchObject({ status: 0 });
  });

  const PROGRAMS: Record<string, string[]> = {
    "the binary": [binary, "run", "planted", "--", "echo", "ran"],
    "the library, with a waiting thread": [process.execPath, "-e", LIBRARY],
    "the thread that watches a child": [process.execPath, "-e", WATCHER],
  };
  const SURROUNDINGS: Record<string, string[]> = {
    "nothing special": [],
    "no writable and executable memory": [nowx],
    "little address space": ["sh", "-c", 'ulimit -v 2000000; exec "$@"', "sh"],
  };

  for (const [name, argv] of Object.entries(PROGRAMS)) {
    test(`${name} loads none of them, whatever fails`, async () => {
      using dir = new TempDir();
      using locks = new TempDir();
      await plant(dir);
      for (const [where, prefix] of Object.entries(SURROUNDINGS)) {
        const env = { EXCLUSIVE_DIR: locks.path };
        const { stdout, stderr, status } = await command([...prefix, ...argv], { cwd: dir.path, env });
        expect({ where, loaded: stderr.includes("FROM CWD") }).toEqual({ where, loaded: false });
        if (prefix.length === 0) expect({ stdout, status }).toEqual({ stdout: "ran\n", status: 0 });
        // Another kernel has no such switch (99), and a later Bun may need no such memory.
        else if (status !== 0 && status !== 99) expect(stderr).toMatch(/JIT|memory/i);
      }
    }, 60_000);
  }
});
