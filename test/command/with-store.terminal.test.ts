/** A run with a store on a terminal: the keys reach the command once, and the guardian not at all. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { binary } from "../support/paths.ts";
import { childrenOf, command, exclusive } from "../support/process.ts";
import { required } from "../support/required.ts";
import { hasRedis, type RedisServer, startRedis } from "../support/servers.ts";
import { KEY, TerminalProcess } from "../support/terminal.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(60_000);

describe.if(process.platform === "linux" && hasRedis() && required("bash", "bash"))("with a store", () => {
  let server: RedisServer;
  const on = (...argv: string[]) =>
    new TerminalProcess(argv, { env: { EXCLUSIVE_STORE: server.url, PS1: "P> " } });
  const run = (name: string, ...argv: string[]) => on(binary, "run", "--ttl", "3s", name, "--", ...argv);
  const free = (name: string) => async () =>
    (await exclusive(["status", name], { env: { EXCLUSIVE_STORE: server.url } })).status === 3;

  beforeAll(async () => {
    server = await startRedis();
    await exclusive(["run", "--ttl", "3s", "first", "--", "true"], { env: { EXCLUSIVE_STORE: server.url } });
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  for (const [key, signal] of [
    ["CTRL_C", "INT"],
    ["CTRL_BACKSLASH", "QUIT"],
  ] as const) {
    test(`${key} reaches the command once, which goes on`, async () => {
      const script = `trap 'echo "<got>"' ${signal}; echo begun; while read -r line; do echo "[$line]"; done; exit 5`;
      await using tty = run(key, "bash", "-c", script);
      await tty.shows("begun");
      tty.type(KEY[key]);
      await tty.shows("<got>");
      tty.type("one\n");
      await tty.shows("[one]");
      tty.type(KEY.CTRL_D);
      expect(await tty.result).toEqual({ status: 5, signal: null });
      expect(tty.output.match(/<got>/g)).toHaveLength(1);
    });
  }

  test("Ctrl-C ends the command and the wrapper, and releases the lock", async () => {
    await using tty = run("ended", "sh", "-c", "echo begun; exec sleep 60");
    await tty.shows("begun");
    tty.type(KEY.CTRL_C);
    expect(await tty.result).toEqual({ status: null, signal: "SIGINT" });
    expect(await free("ended")()).toBe(true);
  });

  test("Ctrl-C ends a wait", async () => {
    await using holder = run("waited", "sh", "-c", "echo begun; exec sleep 60");
    await holder.shows("begun");
    await using tty = on(binary, "run", "--ttl", "3s", "--wait", "waited", "--", "true");
    await tty.shows("waiting for 'waited'");
    tty.type(KEY.CTRL_C);
    expect(await tty.result).toEqual({ status: null, signal: "SIGINT" });
  });

  test("a terminal that hangs up ends the command, and the lock is free", async () => {
    const tty = run("hung", "sh", "-c", "echo begun; exec sleep 60");
    await tty.shows("begun");
    const running = async (pid: number) => (await command(["ps", "-o", "args=", "-p", String(pid)])).stdout;
    const children = childrenOf(tty.pid);
    const sleeping = await Promise.all(children.map(running));
    const child = children[sleeping.findIndex((args) => args.startsWith("sleep"))]!;
    tty.hangUp();
    await tty.result;
    await until(
      async () => (await command(["kill", "-0", String(child)])).status !== 0,
      "the command to end",
    );
    await until(free("hung"), "the lock to be free");
  });

  test("Ctrl-Z and fg within the lease: the command goes on, and the lock is kept", async () => {
    await using tty = on("bash", "--norc", "--noprofile", "-i");
    await tty.shows("P> ");
    tty.type(`${binary} run --ttl 5s z -- sh -c 'echo be""gun; read x; echo "<$x>"'\n`);
    await tty.shows("begun");
    tty.type(KEY.CTRL_Z);
    await tty.shows("Stopped");
    tty.type("fg\n");
    tty.type("text\n");
    await tty.shows("<text>");
    tty.type('echo "status=$?"\n');
    await tty.shows("status=0");
  });
});
