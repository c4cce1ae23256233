/** The wrapper on a terminal: what the keys, the window and the line do to the command. */
import { expect, test } from "bun:test";
import { KEY, TerminalProcess } from "../pty.ts";
import { binary, TempDir } from "../support.ts";

const run = (...args: string[]) => [binary, "run", "t", "--", ...args];

/** Counts a signal, and says what it has counted when a line is typed. */
const counter = (signal: string) =>
  run(
    "sh",
    "-c",
    `n=0; trap 'n=$((n+1)); echo ${signal}' ${signal}; echo begun; until read -r _; do :; done; echo "n=$n"; read -r _; echo "n=$n"`,
  );

test("Ctrl-C reaches the command once", async () => {
  using dir = new TempDir();
  await using tty = new TerminalProcess(counter("INT"), { dir });
  await tty.shows("begun");
  tty.type(KEY.CTRL_C);
  await tty.shows("INT\r\n");
  tty.type("\n");
  await tty.shows("n=1");
  tty.type("\n");
  await tty.shows("n=1");
  expect(await tty.result).toEqual({ status: 0, signal: null });
  expect(dir.list()).toEqual([]);
});
