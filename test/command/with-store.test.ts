/** The commands with a store: one real redis-server for all of them. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { certificate } from "../support/certificate.ts";
import { binary } from "../support/paths.ts";
import { alive, descriptorsOf, inSignalSet } from "../support/proc.ts";
import { command, exclusive, hold as holdLock, Process, start } from "../support/process.ts";
import { hasRedis, type RedisServer, startRedis } from "../support/servers.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(60_000);

const PASSWORD = "geheim/ß@:%";

describe.if(hasRedis())("with a store", () => {
  let server: RedisServer;
  let url: string;
  const env = () => ({ EXCLUSIVE_STORE: url });
  const run = (args: string[]) => exclusive(["run", "--ttl", "2s", ...args], { env: env() });
  const hold = (name: string, ...options: string[]) =>
    holdLock({ env: env() }, name, "--ttl", "2s", ...options);

  beforeAll(async () => {
    server = await startRedis({ args: ["--requirepass", PASSWORD] });
    url = `redis://default:${encodeURIComponent(PASSWORD)}@127.0.0.1:${server.port}/3`;
    const { status, stderr } = await run(["first", "--", "true"]);
    expect(status).toBe(0);
    expect(stderr).toContain("waiting one lease (2s)"); // a fresh server may have forgotten a lock
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
  });

  // The engine collects garbage in another thread when the event loop has rested for some seconds, and suspends the main one
  // by SIGPWR.
  for (const way of ["block", "ignor"] as const) {
    test(`SIGPWR is the engine's in the wrapper, and the command finds it as it was: ${way}ed`, async () => {
      const argv = [
        "env",
        way === "block" ? "--block-signal=PWR" : "--ignore-signal=PWR",
        binary,
        "run",
        "--ttl",
        "2s",
        `pwr-${way}`,
        "--",
        "sh",
        "-c",
        "echo $$; exec sleep 60",
      ];
      await using wrapper = new Process(argv, { env: env() });
      await wrapper.says("\n");
      const is = (pid: number) => [inSignalSet(pid, "SigBlk", 30), inSignalSet(pid, "SigIgn", 30)];
      expect(is(Number(wrapper.stdout))).toEqual([way === "block", way === "ignor"]);
      await until(() => is(wrapper.pid).join() === "false,false", "the wrapper's to be the engine's again");
    });
  }

  test("each of twelve runs ends with its command, also after fourteen seconds", async () => {
    const long = (i: number) => ["run", "--ttl", "15s", `long${i}`, "--", "sleep", "14"];
    const runs = Array.from({ length: 12 }, (_, i) => start(long(i), { env: env() }));
    try {
      await until(
        () => runs.every(({ running }) => !running),
        "all to end",
        () => "a run does not end",
      );
      for (const { result } of runs) expect((await result).status).toBe(0);
    } finally {
      for (const run of runs) await run[Symbol.asyncDispose]();
    }
  });

  test("status, output, input and environment are those of the command, which gets its token", async () => {
    const script = 'read line; echo "$line $EXCLUSIVE_NAME $EXCLUSIVE_LOCKFILE $EXCLUSIVE_TOKEN"; exit 3';
    const { stdout, stderr, status } = await exclusive(
      ["run", "--ttl", "2s", "a b", "--", "sh", "-c", script],
      {
        env: env(),
        stdin: "hello\n",
      },
    );
    expect(stdout).toMatch(new RegExp(`^hello a b redis://default@127.0.0.1:${server.port}/3 \\d+\\n$`));
    expect({ stderr, status }).toEqual({ stderr: "", status: 3 });
  });

  test("the command inherits no signal mask of the wrapper, and one descriptor: a marker at a high number", async () => {
    const look = ["sh", "-c", "ls /proc/self/fd; exec grep -E 'Sig(Blk|Ign)' /proc/self/status"];
    const plain = await command(look);
    const { stdout } = await run(["fds", "--", ...look]);
    expect(stdout).toMatch(/^1023$/m);
    expect(stdout.replace("1023\n", "")).toBe(plain.stdout);
    const marker = await run(["fds", "--", "readlink", "/proc/self/fd/1023"]);
    expect(marker.stdout).toMatch(/^pipe:/);
  });

  test("held: 75, skip: 0, and a wait with a time limit", async () => {
    await using holder = await hold("held", "--label", "the label");
    const refused = await run(["held", "--", "echo", "no"]);
    expect(refused).toMatchObject({ status: 75, stdout: "" });
    expect(refused.stderr).toContain(`'held' is held by pid ${holder.pid}`);
    expect(await run(["--if-held", "skip", "held", "--", "echo", "no"])).toMatchObject({
      status: 0,
      stdout: "",
    });
    expect(await run(["-t", "200ms", "held", "--", "echo", "no"])).toMatchObject({ status: 75, stdout: "" });
  });

  test("a waiter runs as soon as the lock is released", async () => {
    await using holder = await hold("next");
    await using next = start(["run", "-v", "--ttl", "2s", "--wait", "next", "--", "echo", "mine"], {
      env: env(),
    });
    await until(() => next.stderr.includes("waiting for 'next'"), "the waiter's line");
    expect(next.stdout).toBe("");
    holder.kill("SIGTERM");
    expect(await next.result).toMatchObject({ status: 0, stdout: "mine\n" });
    expect(await holder.result).toMatchObject({ signal: "SIGTERM" });
  });

  test("an update may replace the program while it waits", async () => {
    using dir = new TempDir();
    const program = dir.file("exclusive");
    copyFileSync(binary, program);
    await using holder = await hold("updated");
    const args = ["run", "-v", "--ttl", "2s", "--wait", "updated", "--", "echo", "ran"];
    await using next = new Process([program, ...args], { env: env() });
    await until(() => next.stderr.includes("waiting for 'updated'"), "the waiter's line");
    writeFileSync(dir.file("new"), "#!/bin/sh\nexit 3\n", { mode: 0o755 });
    renameSync(dir.file("new"), program);
    holder.kill();
    expect(await next.result).toMatchObject({ status: 0, stdout: "ran\n" });
  });

  test("shared, slots, coalesce and replace", async () => {
    await using _reader = await hold("readers", "--shared");
    expect((await run(["--shared", "readers", "--", "true"])).status).toBe(0);
    expect((await run(["readers", "--", "true"])).status).toBe(75);

    await using _one = await hold("slots", "--slots", "2");
    await using _two = await hold("slots", "--slots", "2");
    expect((await run(["--slots", "2", "slots", "--", "true"])).status).toBe(75);

    await using old = await hold("replaced");
    expect(await run(["--if-held", "replace", "replaced", "--", "echo", "new"])).toMatchObject({ status: 0 });
    expect((await old.result).signal).toBe("SIGTERM");

    await using running = await hold("merged");
    const merged = ["run", "-v", "--ttl", "2s", "--if-held", "coalesce", "merged", "--"];
    await using waiting = start([...merged, "sh", "-c", "echo ran; sleep 2"], { env: env() });
    await until(() => waiting.stderr.includes("waiting"), "the one that waits");
    await using other = start([...merged, "echo", "no"], { env: env() });
    await until(() => other.stderr.includes("waiting"), "the one that waits behind it");
    running.kill();
    expect(await other.result).toMatchObject({ status: 0, stdout: "" });
    expect(await waiting.result).toMatchObject({ status: 0, stdout: "ran\n" });
  });

  test("status, list, wait and stop", async () => {
    await using holder = await hold("seen", "--label", "a label");
    const one = await exclusive(["status", "seen"], { env: env() });
    expect(one.status).toBe(0);
    expect(one.stdout).toMatch(
      new RegExp(`^'seen' is held by pid ${holder.pid} for \\d+s \\(a label\\): sleep 600\\n$`),
    );
    const list = await exclusive(["list", "--json"], { env: env() });
    const found = JSON.parse(list.stdout).find(({ name }: { name: string }) => name === "seen");
    expect(found).toMatchObject({
      state: "held",
      holder: { pid: holder.pid, label: "a label", mode: "exclusive" },
    });
    expect(found.holder.token).toMatch(/^\d+$/);
    expect((await exclusive(["wait", "-t", "100ms", "seen"], { env: env() })).status).toBe(75);
    await using waiting = start(["wait", "seen"], { env: env() });
    const stopped = await exclusive(["stop", "seen"], { env: env() });
    expect({ ...stopped, stderr: "" }).toMatchObject({ status: 0 });
    expect((await holder.result).signal).toBe("SIGTERM");
    expect((await waiting.result).status).toBe(0);
    expect((await exclusive(["status", "seen"], { env: env() })).status).toBe(3);
  });

  test("doctor finds that locks work", async () => {
    const { stdout, status } = await exclusive(["doctor", "--store", url]);
    expect(stdout).toContain("locks work here");
    expect(stdout.match(/^yes /gm)).toHaveLength(4);
    expect(status).toBe(0);
  });

  test("the password is shown nowhere: not in messages, lists or titles, nor in the environment of the command", async () => {
    const secrets = [PASSWORD, encodeURIComponent(PASSWORD)];
    using dir = new TempDir();
    writeFileSync(dir.file("url"), `${url}\n`);
    const shown: string[] = [];
    const collect = ({ stdout, stderr }: { stdout: string; stderr: string }) => shown.push(stdout, stderr);
    await using holder = start(
      [
        "run",
        "-v",
        "--store-file",
        dir.file("url"),
        "--ttl",
        "2s",
        "quiet",
        "--",
        "sh",
        "-c",
        "echo begun; exec sleep 60",
      ],
      {},
    );
    await holder.says("begun");
    const family = (await command(["ps", "-eo", "pid,ppid,args", "--no-headers"])).stdout
      .split("\n")
      .filter((line) => line.trim().split(/\s+/, 2).includes(String(holder.pid)));
    expect(family.length).toBe(3); // wrapper, guardian, command
    shown.push(...family);
    collect(await exclusive(["list", "--json"], { env: env() }));
    collect(await exclusive(["run", "-v", "--log-format", "json", "quiet", "--", "true"], { env: env() }));
    collect(await exclusive(["status", "quiet", "--store", url.replace(/.$/, "x")]));
    collect(await exclusive(["status", "quiet", "--store", url.replace(`:${server.port}`, ":1")]));
    const wrong = await exclusive(["status", "quiet", "--store", url.replace("default", "nobody")]);
    expect(wrong.status).toBe(69);
    collect(wrong);
    holder.kill();
    collect(await holder.result);
    for (const text of shown) for (const secret of secrets) expect(text).not.toContain(secret);
  });

  test("wrong usage is 64, and an unreachable server 69", async () => {
    for (const wrong of [
      ["run", "--store", url, "--dir", "/tmp", "x", "--", "true"],
      ["run", "--store", url, "--keep", "x", "--", "true"],
      ["run", "--store", url, "--file", "/tmp", "x", "--", "true"],
      ["run", "--store", url, "--exec", "x", "--", "true"],
      ["run", "--store", url, "--store-file", "/dev/null", "x", "--", "true"],
      ["run", "--store", "mysql://host", "x", "--", "true"],
      ["run", "--store", url, "--ttl", "10ms", "x", "--", "true"],
      ["run", "--store-file", "/nowhere/\x1b[31mat/all", "x", "--", "true"],
      ["run", "--store", "redis://127.0.0.1/name", "x", "--", "true"],
    ]) {
      const { status, stderr, stdout } = await exclusive(wrong);
      expect({ wrong, status, stdout }).toEqual({ wrong, status: 64, stdout: "" });
      expect(stderr).toMatch(/^exclusive: /);
      expect(stderr).not.toContain("\x1b");
    }
    const away = await exclusive(["run", "--store", "redis://127.0.0.1:1", "x", "--", "true"]);
    expect(away).toMatchObject({
      status: 69,
      stderr: "exclusive: redis://127.0.0.1:1: connection refused\n",
    });
    expect((await run(["x", "--", "/nowhere/command"])).status).toBe(127);
    expect((await run(["x", "--", "/"])).status).toBe(126);
    expect((await run(["x", "--", "true"])).status).toBe(0); // and it was released
  });

  test("--dir on the command line means a file, whatever EXCLUSIVE_STORE says", async () => {
    using dir = new TempDir();
    const command = ["sh", "-c", 'echo "$EXCLUSIVE_LOCKFILE"'];
    const { stdout } = await exclusive(["run", "--dir", dir.path, "local", "--", ...command], { env: env() });
    expect(stdout).toBe(`${dir.file("exclusive_local.lock")}\n`);
  });

  test("each signal reaches the command, and the wrapper ends as the command ends", async () => {
    const common = ["SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP"] as const;
    const rare = [
      "SIGILL",
      "SIGABRT",
      "SIGBUS",
      "SIGFPE",
      "SIGSEGV",
      "SIGSYS",
      "SIGTRAP",
      "SIGXFSZ",
    ] as const;
    for (const signal of [...common, ...rare]) {
      const script = `trap 'echo got; exit 9' ${signal.slice(3)}; echo begun; while :; do sleep 0.02; done`;
      await using holder = start(["run", "signals", "--", "bash", "-c", script], { env: env() });
      await holder.says("begun");
      holder.kill(signal);
      expect(await holder.result).toMatchObject({ status: 9, stdout: "begun\ngot\n" });
    }
  });

  test("a daemon of the command does not keep the lock, and the guardian ends", async () => {
    const { stdout } = await run(["daemon", "--", "sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"]);
    const left = Number(stdout);
    expect(alive(left)).toBe(true);
    process.kill(left);
    expect((await exclusive(["status", "daemon"], { env: env() })).status).toBe(3);
    const ours = readdirSync("/proc").filter((pid) => {
      try {
        return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--guardian");
      } catch {
        return false;
      }
    });
    // Other tests may run guardians too: those of other servers do not count.
    const port = `:${server.port.toString(16).toUpperCase().padStart(4, "0")} `;
    const connected = ours.filter((pid) => {
      try {
        const sockets = descriptorsOf(Number(pid));
        const lines = readFileSync(`/proc/${pid}/net/tcp`, "utf8").split("\n");
        const inodes = lines.filter((line) => line.includes(port)).map((line) => line.trim().split(/\s+/)[9]);
        return inodes.some((inode) => sockets.includes(`socket:[${inode}]`));
      } catch {
        return false;
      }
    });
    expect(connected).toEqual([]);
  });

  test("a run that has no descriptors left to start what it needs gives its lock back: 71, or the command's status", async () => {
    const outcomes = new Set<number>();
    for (let most = 7; most <= 16; most++) {
      const name = `few${most}`;
      const limit = ["sh", "-c", `ulimit -n ${most}; exec "$@"`, "sh"];
      const { status } = await command(
        [...limit, binary, "run", "--ttl", "15s", name, "--", "sh", "-c", "exit 7"],
        {
          env: env(),
        },
      );
      outcomes.add(status!);
      expect(await exclusive(["status", name], { env: env() })).toMatchObject({ status: 3 });
    }
    expect([...outcomes].sort()).toEqual([7, 71]);
  });

  test("without a store no code of a store is loaded, and no connection is opened", async () => {
    using dir = new TempDir();
    const trace = dir.file("trace");
    const args = ["run", "--dir", dir.path, "x", "--", "true"];
    const { status } = await command([
      "strace",
      "-f",
      "-o",
      trace,
      "-e",
      "trace=socket,connect",
      "dist/exclusive",
      ...args,
    ]);
    expect(status).toBe(0);
    expect(readFileSync(trace, "utf8")).not.toMatch(/socket\(AF_INET|connect\(/);
  });
});

describe.if(hasRedis())("Redis with TLS and users", () => {
  test("rediss://, an ACL user with the rights that docs/stores.md names, and the certificate", async () => {
    using dir = new TempDir();
    const { cert, key } = await certificate(dir);
    await using server = await startRedis();
    const tls = server.port;
    await server.stop();
    await using secure = await startRedis({
      args: [
        "--tls-port",
        String(tls),
        "--tls-cert-file",
        cert,
        "--tls-key-file",
        key,
        "--tls-auth-clients",
        "no",
      ],
    });
    const rights = [
      "on",
      ">pw",
      "~exclusive:*",
      "&exclusive:*",
      "+@connection",
      "+@scripting",
      "+@read",
      "+@write",
    ];
    await secure.cli("ACL", "SETUSER", "worker", ...rights, "+@pubsub", "+info", "+time", "+scan");
    const url = `rediss://worker:pw@127.0.0.1:${tls}/2?cacert=${cert}`;
    const { stdout, stderr, status } = await exclusive([
      "run",
      "-v",
      "--ttl",
      "3s",
      "--store",
      url,
      "x",
      "--",
      "echo",
      "ok",
    ]);
    expect({ stdout, status }).toEqual({ stdout: "ok\n", status: 0 });
    expect(stderr).toContain(`(rediss://worker@127.0.0.1:${tls}/2, token`);
    expect(await secure.cli("-n", "2", "EXISTS", "exclusive:memory")).toBe("1");
    expect((await exclusive(["list", "--store", url])).status).toBe(0);
    const untrusted = await exclusive(["status", "x", "--store", url.replace(/\?.*/, "")]);
    expect(untrusted.status).toBe(69);
    await secure.cli("ACL", "SETUSER", "worker", "-info");
    const refused = await exclusive(["run", "--store", url, "x", "--", "true"]);
    expect(refused.status).toBe(69);
    expect(refused.stderr).toContain("see docs/stores.md for the permissions it needs");
  });
});
