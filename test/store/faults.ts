/**
 * Whatever fails, two commands must never run at once. The same tests run for every engine: with a real server, a real
 * network in between (a proxy that can cut it), and commands that check by themselves whether they are alone.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { NetworkProxy } from "../support/network-proxy.ts";
import { alive } from "../support/proc.ts";
import { childrenOf, exclusive, type Process, start } from "../support/process.ts";
import type { Server } from "../support/servers.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(90_000);

/** Waits until a run reports that it waits for the lock. */
export const waits = (run: Process): Promise<void> =>
  until(
    () => run.stderr.includes("waiting for"),
    "it to wait",
    () => run.stderr,
  );

/** One event in the life of a command. */
export interface Entry {
  event: "begin" | "end" | "violation";
  token: bigint;
  pid: number;
}

/** See `CommandLog.command`. */
type Kind = "" | "stubborn" | "shed";

/**
 * A command that logs its events and detects whether it is alone. It holds flock(2) on a file, independently of any
 * store, as long as it or a child of it lives. A command that does not get that lock is not alone.
 */
export class CommandLog implements Disposable {
  readonly dir = new TempDir();
  readonly file = this.dir.file("log");
  readonly #script = this.dir.file("command.sh");

  constructor() {
    writeFileSync(this.file, "");
    writeFileSync(
      this.#script,
      `exec 9>>"${this.dir.file("alone")}"
       say() { echo "$1 $EXCLUSIVE_TOKEN $$" >>"${this.file}"; }
       flock --nonblock 9 || say violation
       if [ "$2" = stubborn ]; then trap "" TERM; setsid --fork sleep "$1"; fi
       if [ "$2" = shed ]; then setsid --fork env -i sleep "$1"; fi
       say begin
       sleep "$1"
       say end
      `,
    );
  }
  /**
   * The argv of a command that runs for this many seconds.
   * @param kind `stubborn`: it ignores SIGTERM, and so does an orphaned child in another session; `shed`: such a child with
   *   an empty environment
   */
  command(seconds: number, kind: Kind = ""): string[] {
    return ["bash", this.#script, String(seconds), kind];
  }
  entries(): Entry[] {
    return readFileSync(this.file, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => {
        const [event, token, pid] = line.split(" ");
        return { event: event as Entry["event"], token: BigInt(token!), pid: Number(pid) };
      });
  }
  /** Waits until this many commands have begun, and returns the last one. */
  async begun(count: number, context: () => string): Promise<Entry> {
    const begins = () => this.entries().filter(({ event }) => event === "begin");
    await until(() => begins().length >= count, `command ${count} to begin`, context);
    return begins()[count - 1]!;
  }
  /** Does the command still run? */
  isAlive({ pid }: Entry): boolean {
    return alive(pid);
  }
  /** Lets a command end before its time, as if its work were done. */
  finish({ pid }: Entry): void {
    for (const child of childrenOf(pid)) process.kill(child);
  }
  /** Checks that no two ran at once, and that each had a larger token than the one before. */
  check(): void {
    const entries = this.entries();
    expect(entries.filter(({ event }) => event === "violation")).toEqual([]);
    const tokens = entries.filter(({ event }) => event === "begin").map(({ token }) => token);
    for (const [i, token] of tokens.slice(1).entries()) expect(token).toBeGreaterThan(tokens[i]!);
  }
  [Symbol.dispose](): void {
    this.dir[Symbol.dispose]();
  }
}

/** What a test of faults works with. */
export interface Scene extends AsyncDisposable {
  proxy: NetworkProxy;
  log: CommandLog;
  /** The URL of the store, through the proxy and directly. */
  far: string;
  near: string;
  ttl: number;
  /** Starts `exclusive run` of the lock `work`, with a command that runs for this many seconds. */
  run(url: string, seconds: number, ...options: string[]): Process;
  /** The kind of the commands of later runs. */
  kind: Kind;
  /** The pid of the guardian of a run. */
  guardian(run: Process): number;
}

/** A lease that a busy machine can renew in time. */
const TTL = 3;

export function scene(server: Server): Scene {
  const proxy = new NetworkProxy(server.port);
  const log = new CommandLog();
  const runs: Process[] = [];
  return {
    proxy,
    log,
    far: server.url.replace(`:${server.port}`, `:${proxy.port}`),
    near: server.url,
    ttl: TTL * 1000,
    kind: "",
    run(url, seconds, ...options) {
      const talks = options.includes("--wait") ? ["-v"] : []; // a test waits for its words
      const args = [
        "run",
        "--ttl",
        `${TTL}s`,
        ...talks,
        ...options,
        "work",
        "--",
        ...log.command(seconds, this.kind),
      ];
      const run = start(args, { env: { EXCLUSIVE_STORE: url } });
      runs.push(run);
      return run;
    },
    guardian(run) {
      return childrenOf(run.pid).find((pid) =>
        readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("--guardian"),
      )!;
    },
    async [Symbol.asyncDispose]() {
      proxy.pass();
      for (const run of runs) await run[Symbol.asyncDispose]();
      // The guardian ends a command whose wrapper was killed: nothing may be left after the test.
      const left = () => log.entries().filter(({ event, pid }) => event === "begin" && alive(pid));
      await until(() => left().length === 0, "every command to end");
      proxy[Symbol.dispose]();
      log[Symbol.dispose]();
    },
  };
}

export interface FaultOptions {
  /** Starts a server, if possible one that keeps no data when it is killed. */
  start: () => Promise<Server>;
  /** Ends the wrapper's session, revokes its lease or deletes its key, as an administrator can; not its second hold. */
  takeAway?: (server: Server) => Promise<void>;
  /** The lock ends with its connection. */
  connectionIsLock?: boolean;
  /** The server still knows its locks after it was killed and started again. */
  remembers?: boolean;
}

/** Defines the tests. */
export function faultSuite(name: string, options: FaultOptions): void {
  describe(`${name}: faults`, () => {
    let server: Server;
    beforeAll(async () => {
      server = await options.start();
      // A store is usable when its memory reaches back one lease.
      await using first = scene(server);
      await first.run(first.near, 0).result;
    }, 90_000);
    afterAll(async () => {
      await server?.[Symbol.asyncDispose]();
    }, 30_000);

    /**
     * One holder through the proxy, then the fault, then a waiter with a direct connection. The first command must have
     * ended before the second begins, and its run must report why.
     */
    async function survives(
      fault: (at: Scene, holder: Process) => Promise<void> | void,
      { status = 70 as number | null, says = /lost the lock 'work'.*stopped/ } = {},
    ): Promise<void> {
      await using at = scene(server);
      const holder = at.run(at.far, 600);
      const first = await at.log.begun(1, () => holder.stderr);
      await fault(at, holder);
      const next = at.run(at.near, 0, "--wait");
      await at.log.begun(2, () => `${holder.stderr}${next.stderr}`);
      expect(alive(first.pid)).toBe(false);
      at.log.check();
      expect({ ...(await next.result), stderr: "" }).toMatchObject({ status: 0 });
      holder.kill("SIGCONT");
      const { stderr: _, ...ended } = await holder.result;
      await until(
        () => says.test(holder.stderr), // a guardian may say it after the wrapper's end
        `the reason ${says}`,
        () => holder.stderr,
      );
      expect(ended.status).toBe(status);
    }

    test("the network drops everything", () => survives(({ proxy }) => proxy.hold("both")));
    test("the network drops everything to the server", () => survives(({ proxy }) => proxy.hold("up")));
    test("the network drops everything to the client", () => survives(({ proxy }) => proxy.hold("down")));
    test("every answer takes longer than a lease", () =>
      survives(({ proxy, ttl }) => {
        proxy.delay = ttl * 2;
      }));
    test("the wrapper is stopped for longer than its lease, and continued", () =>
      survives((_, holder) => holder.kill("SIGSTOP")));
    test("the wrapper is killed", () =>
      survives((_, holder) => holder.kill("SIGKILL"), { status: null, says: /wrapper of 'work'.* is gone/ }));
    test("the guardian is killed", () =>
      survives((at, holder) => void process.kill(at.guardian(holder), "SIGKILL"), {
        says: /lost the lock 'work'.*guards it has ended.*stopped/,
      }));

    test.if(options.connectionIsLock === true)("the connection is cut", () =>
      survives(({ proxy }) => proxy.cut()),
    );

    for (const [what, fault] of [
      ["the network drops everything", (at: Scene) => at.proxy.hold("both")],
      ["the wrapper is killed", (_: Scene, holder: Process) => holder.kill("SIGKILL")],
      ["the wrapper is stopped", (_: Scene, holder: Process) => holder.kill("SIGSTOP")],
    ] as const) {
      test(`${what}: a command that ignores SIGTERM is killed, with its detached child`, async () => {
        await using at = scene(server);
        at.kind = "stubborn";
        const holder = at.run(at.far, 600);
        const first = await at.log.begun(1, () => holder.stderr);
        fault(at, holder);
        at.kind = "";
        const next = at.run(at.near, 0, "--wait");
        await at.log.begun(2, () => `${holder.stderr}${next.stderr}`);
        expect(alive(first.pid)).toBe(false);
        at.log.check(); // the child had the file locked too
        holder.kill("SIGCONT");
        await holder.result;
        expect((await next.result).status).toBe(0);
      });
    }

    for (const [what, fault] of [
      ["the network drops everything", (at: Scene) => at.proxy.hold("both")],
      ["the wrapper is killed", (_: Scene, holder: Process) => holder.kill("SIGKILL")],
    ] as const) {
      test(`${what}: a descendant that left the session and emptied its environment is ended too`, async () => {
        await using at = scene(server);
        at.kind = "shed";
        const holder = at.run(at.far, 600);
        const first = await at.log.begun(1, () => holder.stderr);
        fault(at, holder);
        at.kind = "";
        const next = at.run(at.near, 0, "--wait");
        await at.log.begun(2, () => `${holder.stderr}${next.stderr}`);
        expect(alive(first.pid)).toBe(false);
        at.log.check(); // the descendant had the file locked too
        await holder.result;
        expect((await next.result).status).toBe(0);
      });
    }

    test.each(["wrapper", "command"])(
      "SIGTERM to the %s: the lock stays as long as a child of it works",
      async (to) => {
        await using at = scene(server);
        at.kind = "shed";
        const holder = at.run(at.near, 600);
        const first = await at.log.begun(1, () => holder.stderr);
        if (to === "wrapper") holder.kill();
        else process.kill(first.pid);
        await until(() => holder.stderr.includes("'work' stays locked by"), "the wrapper to keep the lock");
        const left = [...holder.stderr.matchAll(/\d+(?=[,)])/g)].map(([pid]) => Number(pid));
        expect(left.length).toBeGreaterThan(0);
        at.kind = "";
        const refused = at.run(at.near, 0);
        expect((await refused.result).status).toBe(75);
        const next = at.run(at.near, 0, "--wait");
        await waits(next);
        for (const pid of left) process.kill(pid, "SIGKILL");
        expect((await holder.result).signal).toBe("SIGTERM");
        expect((await next.result).status).toBe(0);
        at.log.check();
      },
    );

    test("stop and replace end all processes of the command before the next one begins", async () => {
      await using at = scene(server);
      at.kind = "shed";
      const env = { EXCLUSIVE_STORE: at.near };
      const first = at.run(at.near, 600);
      await at.log.begun(1, () => first.stderr);
      const second = at.run(at.near, 600, "--if-held", "replace");
      await at.log.begun(2, () => second.stderr);
      expect(await exclusive(["stop", "work"], { env })).toMatchObject({ status: 0 });
      at.kind = "";
      expect((await at.run(at.near, 0).result).status).toBe(0);
      at.log.check();
    });

    test.if(!options.connectionIsLock)(
      "a connection that is cut is replaced, and the lock is kept",
      async () => {
        await using at = scene(server);
        const holder = at.run(at.far, 2 * TTL);
        await at.log.begun(1, () => holder.stderr);
        at.proxy.cut();
        const { status, stderr } = await holder.result;
        expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
        expect(at.log.entries().map(({ event }) => event)).toEqual(["begin", "end"]);
      },
    );

    // A connection outlives that, and so does a lock that ends with its connection: no other command runs meanwhile.
    test.if(!options.connectionIsLock)(
      "a paused machine: wrapper, guardian and command stand still, and another one works meanwhile",
      async () => {
        await using at = scene(server);
        const holder = at.run(at.far, 600);
        const first = await at.log.begun(1, () => holder.stderr);
        const all = [at.guardian(holder), first.pid, holder.pid];
        for (const pid of all) process.kill(pid, "SIGSTOP");
        const next = at.run(at.near, 600, "--wait");
        const second = await at.log.begun(2, () => next.stderr);
        expect(second.token).toBeGreaterThan(first.token); // what it writes with the old one can be refused
        for (const pid of all.reverse()) process.kill(pid, "SIGCONT");
        const { status, stderr } = await holder.result;
        expect(stderr).toMatch(/lost the lock 'work'/);
        expect(status).toBe(70);
        expect(alive(first.pid)).toBe(false);
        at.log.finish(second);
        await next.result;
      },
    );

    test.if(options.takeAway !== undefined)("an administrator takes the lock away", () =>
      survives(() => options.takeAway!(server)),
    );

    test.if(options.remembers === true)(
      "the server is killed and started again: nothing is lost",
      async () => {
        await using at = scene(server);
        const longer = ["--ttl", "8s"]; // than a server needs to start
        const holder = at.run(at.near, 10, ...longer);
        await at.log.begun(1, () => holder.stderr);
        const next = at.run(at.near, 0, "--wait", ...longer);
        await waits(next); // a run that begins while the server is down exits with 69
        await server.kill();
        await server.start();
        expect({ ...(await holder.result), stdout: "" }).toMatchObject({ status: 0, stderr: "" });
        expect((await next.result).status).toBe(0);
        at.log.check();
      },
    );

    test.if(!options.remembers)("the server is killed and started again", () =>
      survives(async () => {
        await server.kill();
        await server.start();
      }),
    );

    test("many contend and are killed at random: never two commands at once, and tokens only grow", async () => {
      await using at = scene(server);
      const seconds = Number(process.env.STORE_CONTENTION_SECONDS ?? 6);
      const end = Date.now() + seconds * 1000;
      const contend = async (i: number) => {
        while (Date.now() < end) {
          const run = at.run(i % 2 ? at.near : at.far, 0.02, "--wait");
          const doomed = Math.random() < 0.3;
          const timer = setTimeout(() => doomed && run.kill("SIGKILL"), 200 + Math.random() * 2500);
          await run.result;
          clearTimeout(timer);
        }
      };
      await Promise.all(Array.from({ length: seconds > 10 ? 20 : 8 }, (_, i) => contend(i)));
      at.log.check();
      expect(at.log.entries().filter(({ event }) => event === "end").length).toBeGreaterThan(2);
    });
  });
}
