/** Hostile names, directories, records and environments. */
import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { CannotAcquireLock, Lock } from "../../src/index.ts";
import { fileName } from "../../src/name.ts";
import { binary } from "../support/paths.ts";
import { alive, startTimeOf } from "../support/proc.ts";
import { command, exclusive, Process } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

/** What a terminal obeys, or by which it shows another text than it was given. */
const HARMFUL = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;
const harmless = (text: string) => expect(text.replaceAll("\n", "")).not.toMatch(HARMFUL);

const root = process.getuid?.() === 0;

/** Any text that can be a name on a command line, with a liking for what terminals and file systems treat specially. */
const anyName = fc
  .string({
    unit: fc.oneof(
      { weight: 2, arbitrary: fc.string({ unit: "binary", minLength: 1, maxLength: 1 }) },
      fc.constantFrom(
        ..."/ .. . - % + \n \r \t \x1b \x1b[31m \x07 \x7f \x9b \u202e \u2028 ' \" \\ $ ` * ~ é 💥".split(" "),
        " ",
      ),
    ),
    minLength: 1,
    maxLength: 40,
  })
  .filter((name) => name.isWellFormed() && !/[\0\ufffd]/.test(name));

const NAMES = [
  ...[
    "..",
    ".",
    "/",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a//b",
    "%2e%2e",
    "a+b",
    "a b",
    " ",
    "~",
    "*",
  ],
  ...[
    "\n",
    "a\nb",
    "\t",
    "\r",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x7f",
    "\x9b31m",
    "\u202ecod",
    "\u2028",
  ],
  ...["é", "e\u0301", "日本", "💥", "$(reboot)", "`reboot`", "'; reboot", '"', "\\", "con", "a.lock"],
];

describe("a name", () => {
  test("of any text is one file in the lock directory, and reaches the command as it is", async () => {
    using dir = new TempDir();
    for (const name of [...NAMES, "x".repeat(100_000), "-", "--help", "-w"]) {
      const script = 'printf "%s" "$EXCLUSIVE_NAME"; ls -A "$EXCLUSIVE_DIR" >&2';
      const { status, stdout, stderr } = await exclusive(["run", "--", name, "sh", "-c", script], { dir });
      expect(stdout).toBe(name);
      expect({ status, stderr }).toEqual({ status: 0, stderr: `${fileName(name)}\n` });
      expect(dir.list()).toEqual([]);
    }
  });

  test("two names are two locks", () => {
    using dir = new TempDir();
    const held = new Set<string>();
    fc.assert(
      fc.property(fc.uniqueArray(anyName, { minLength: 2, maxLength: 5 }), (names) => {
        const locks = names.map((name) => new Lock({ name, dir: dir.path }).acquireSync());
        try {
          expect(dir.list().length).toBe(names.length);
          for (const file of dir.list()) {
            harmless(file);
            expect(Buffer.byteLength(file)).toBeLessThanOrEqual(255);
          }
          for (const name of names) {
            expect(() => new Lock({ name, dir: dir.path }).acquireSync()).toThrow(CannotAcquireLock);
            held.add(name);
          }
        } finally {
          for (const lock of locks) lock.releaseSync();
        }
        expect(dir.list()).toEqual([]);
      }),
      { numRuns: 100 },
    );
    expect(held.size).toBeGreaterThan(50);
  });

  test("that is empty, or no UTF-8, is a usage error: two of them must not be one lock", async () => {
    using dir = new TempDir();
    const call = (rest: string) => command(["sh", "-c", `exec "$0" ${rest}`, binary], { dir });
    for (const name of [
      `""`,
      `"$(printf 'a\\377')"`,
      `"$(printf 'a\\376')"`,
      `"$(printf '\\355\\240\\200')"`,
    ]) {
      for (const rest of [
        `run ${name} echo no`,
        `status ${name}`,
        `wait ${name}`,
        `stop ${name}`,
        `path ${name}`,
      ]) {
        const { status, stdout, stderr } = await call(rest);
        expect({ rest, status, stdout }).toEqual({ rest, status: 64, stdout: "" });
        expect(stderr).toMatch(/a lock's name must/);
      }
    }
    expect(dir.list()).toEqual([]);
    for (const name of ["", "\ud800", "a\udfff", "\ufffd"])
      expect(() => new Lock({ name, dir: dir.path })).toThrow(TypeError);
  });

  test("and a label never reach a terminal unquoted, whichever command prints them", async () => {
    using dir = new TempDir();
    const samples = fc.sample(fc.tuple(anyName, anyName), 6);
    const evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e";
    for (const [name, label] of [[evil, evil] as [string, string], ...samples]) {
      const lock = new Lock({ name, label, dir: dir.path }).acquireSync();
      const outputs = await Promise.all(
        [
          ["run", "--", name, "true"],
          ["run", "--timeout", "1ms", "--", name, "true"],
          ["run", "--log-format", "json", "--", name, "true"],
          ["status", "--", name],
          ["status", "--json", "--", name],
          ["list"],
          ["list", "--json"],
          ["wait", "--timeout", "1ms", "--", name],
          ["path", "--", name],
          ["path", "--json", "--", name],
        ].map((args) => exclusive(args, { dir })),
      );
      lock.releaseSync();
      for (const { stdout, stderr } of outputs) {
        expect(stdout + stderr).not.toBe("");
        harmless(stdout);
        harmless(stderr);
      }
    }
  });

  test("in an error is quoted too: options, values, commands", async () => {
    using dir = new TempDir();
    const evil = "\x1b[31m\x07\x9b\u202e";
    for (const args of [
      [evil],
      ["run", `--${evil}`, "t", "true"],
      ["run", `-${evil}`, "t", "true"],
      ["run", "--timeout", evil, "t", "true"],
      ["run", "--if-held", evil, "t", "true"],
      ["run", "--slots", evil, "t", "true"],
      ["run", "--dir", `/nowhere/${evil}`, "t", "true"],
      ["run", "--file", `/nowhere/${evil}`, "t", "true"],
      ["run", "t", `/nowhere/${evil}`],
      ["stop", "--signal", evil, "t"],
      ["completion", evil],
      ["doctor", `/nowhere/${evil}`],
      ["help", evil],
    ]) {
      const { status, stdout, stderr } = await exclusive(args, { dir });
      expect(status).toBeGreaterThan(0);
      expect(stderr).not.toBe("");
      expect(stderr).not.toContain("internal error");
      harmless(stdout + stderr);
    }
  });
});

/** Runs a script in its own mount namespace, where `$1` is a file system with these options. */
async function onMount(options: string, script: string) {
  using dir = new TempDir();
  const mount = `mount -t tmpfs -o ${options} tmpfs "$1" || exit 99\n`;
  return await command(["unshare", "--mount", "sh", "-c", `${mount}${script}`, binary, dir.path], {
    env: { EXCLUSIVE_DIR: dir.path },
  });
}
const canMount = root && (await onMount("size=1m", "true")).status === 0;
if (!canMount) console.warn("skipped: tests that need to mount a file system");

describe.if(canMount)("a directory", () => {
  const said = (text: string) =>
    expect.stringMatching(new RegExp(`^exclusive: cannot open .*: ${text}.*\\n$`));

  test("without room for another file", async () => {
    const result = await onMount("nr_inodes=2", `touch "$1/full"; exec "$0" run t echo no`);
    expect(result).toMatchObject({ status: 73, stdout: "", stderr: said("No space left on device") });
  });

  test("without room for a record: the lock is held all the same", async () => {
    const proof = `sh -c 'cat "$EXCLUSIVE_LOCKFILE"; flock -n "$EXCLUSIVE_LOCKFILE" true || echo held'`;
    const script = `head -c 1m /dev/zero >"$1/full" 2>/dev/null; "$0" run t ${proof}; rm "$1/full"; ls "$1"`;
    const result = await onMount("size=8k", script);
    expect(result).toMatchObject({ status: 0, stdout: "held\n", stderr: "" });
  });

  test("that is read-only: an error, and a lock where the file is there", async () => {
    const script = `touch "$1/exclusive_there.lock"; mount -o remount,ro "$1"
      "$0" run there echo ran; "$0" run t echo no`;
    const result = await onMount("size=1m", script);
    expect(result).toMatchObject({ status: 73, stdout: "ran\n", stderr: said("Read-only file system") });
  });

  test("from which nothing may be executed", async () => {
    const result = await onMount("size=1m,noexec,nosuid,nodev", `exec "$0" run t echo ran`);
    expect(result).toMatchObject({ status: 0, stdout: "ran\n", stderr: "" });
  });
});

describe.if(root && required("setpriv", "util-linux"))("two users in a directory like /tmp", () => {
  const NOBODY = 65534;
  const as = (uid: number, args: string[], dir: TempDir) =>
    new Process(["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups", "--", binary, ...args], {
      dir,
    });

  for (const [kind, mode] of [
    ["sticky", 0o1777],
    ["open to all", 0o777],
  ] as const) {
    test(`${kind}: each keeps the other out, and takes over what a crash of the other has left`, async () => {
      using dir = new TempDir();
      chmodSync(dir.path, mode);
      for (const [first, second] of [
        [NOBODY, NOBODY - 1],
        [NOBODY - 1, NOBODY],
        [0, NOBODY],
      ] as const) {
        await using holder = as(first, ["run", "--exec", "t", "sh", "-c", "echo begun; exec sleep 60"], dir);
        await holder.says("begun");
        const refused = await as(second, ["run", "t", "echo", "no"], dir).result;
        expect(refused).toMatchObject({ status: 75, stdout: "" });
        holder.kill("SIGKILL");
        await holder.result;
        const next = await as(
          second,
          ["run", "t", "sh", "-c", `flock -n "$EXCLUSIVE_LOCKFILE" true || echo held`],
          dir,
        ).result;
        expect(next).toMatchObject({ status: 0, stdout: "held\n", stderr: "" });
      }
    });
  }
});

describe.if(process.platform === "linux" && required("flock", "util-linux"))("a record", () => {
  /** flock(1) holds the lock, and the file has this content. */
  async function held(dir: TempDir, content: string | Uint8Array): Promise<Process> {
    const file = dir.file(fileName("t"));
    writeFileSync(file, content);
    const holder = new Process(["flock", "--no-fork", file, "sh", "-c", "echo begun; exec sleep 60"]);
    await holder.says("begun");
    return holder;
  }

  const json = (fields: object) =>
    JSON.stringify({ version: 1, host: "h", acquired: "2026-01-01T00:00:00Z", mode: "exclusive", ...fields });

  test("of arbitrary bytes is no obstacle, and does no harm to a terminal", async () => {
    const samples: (string | Uint8Array)[] = [
      "",
      "\n",
      "1",
      "1\n{",
      `1\n${json({ label: "\x1b[31m\x07", host: "\x1b]0;x\x07" })}\n`,
      `99999999999999\n{}`,
      `-1\n${json({})}`,
      `0\n${json({ command: -1 })}`,
      `1\n${"[".repeat(100_000)}`,
      `${"9".repeat(5_000_000)}`,
      `1\n{"__proto__":{"host":"x"},"label":{},"acquired":[],"mode":7}`,
      ...fc.sample(fc.uint8Array({ maxLength: 300 }), 5),
      ...fc.sample(
        fc.json().map((text) => `${process.pid}\n${text}\n`),
        5,
      ),
    ];
    for (const content of samples) {
      using dir = new TempDir();
      {
        await using _ = await held(dir, content);
        const looks = [["status", "t"], ["list"], ["status", "--json", "t"], ["run", "t", "echo", "no"]];
        const [status, list, asJson, run] = await Promise.all(looks.map((args) => exclusive(args, { dir })));
        expect(status).toMatchObject({ status: 0, stderr: "" });
        expect(list).toMatchObject({ status: 0, stderr: "" });
        expect(JSON.parse(asJson!.stdout)).toMatchObject({ name: "t", state: "held" });
        expect(run).toMatchObject({ status: 75, stdout: "" });
        for (const { stdout, stderr } of [status!, list!, asJson!, run!]) harmless(stdout + stderr);
      }
      const free = await exclusive(["run", "t", "echo", "ran"], { dir });
      expect(free).toMatchObject({ status: 0, stdout: "ran\n", stderr: "" });
      expect(dir.list()).toEqual([]);
    }
  }, 120_000);

  test("that names a bystander, pid 1 or a process of another namespace stops no process", async () => {
    await using bystander = new Process(["sleep", "60"]);
    const started = startTimeOf(bystander.pid);
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    const host = readFileSync("/proc/sys/kernel/hostname", "utf8").trim();
    const { ino } = await Bun.file("/proc/self/ns/pid").stat();
    const here = { host, boot, pidns: String(ino) };
    for (const content of [
      `${bystander.pid}\n${json({ ...here, started })}\n`,
      `${bystander.pid}\n`,
      `${bystander.pid}\n${json({ ...here, started, command: bystander.pid })}\n`,
      `999999\n${json({ ...here, started: "1", command: bystander.pid })}\n`,
      `1\n${json(here)}\n`,
      `${bystander.pid}\n${json({ ...here, started, pidns: "1" })}\n`,
    ]) {
      using dir = new TempDir();
      await using holder = await held(dir, content);
      const { status, stderr } = await exclusive(["stop", "--grace", "0", "t"], { dir });
      expect(status).not.toBe(0);
      expect(stderr).toMatch(/^exclusive: /);
      expect(alive(bystander.pid)).toBe(true);
      expect(alive(holder.pid)).toBe(true);
    }
  });
});

describe("the environment", () => {
  test("a .env and a bunfig.toml in the current directory have no effect", async () => {
    using dir = new TempDir();
    using there = new TempDir();
    const evil = there.file("evil");
    writeFileSync(there.file(".env"), `EXCLUSIVE_DIR=${evil}\nEXCLUSIVE_LOG=info\nHOSTILE=1\n`);
    writeFileSync(there.file("bunfig.toml"), `preload = ["./preload.ts"]\n`);
    writeFileSync(there.file("preload.ts"), `require("node:fs").writeFileSync(${JSON.stringify(evil)}, "");`);
    const { status, stdout } = await exclusive(
      ["run", "t", "sh", "-c", 'echo "$HOSTILE"; ls "$EXCLUSIVE_DIR"'],
      {
        dir,
        cwd: there.path,
      },
    );
    expect({ status, stdout }).toEqual({ status: 0, stdout: `\n${fileName("t")}\n` });
    expect(existsSync(evil)).toBe(false);
  });

  test("an empty environment, and an empty PATH", async () => {
    using dir = new TempDir();
    const bare = await command(["env", "-i", binary, "run", "--dir", dir.path, "t", "/bin/echo", "ran"]);
    expect(bare).toMatchObject({ status: 0, stdout: "ran\n", stderr: "" });
    const noPath = await exclusive(["run", "t", "/bin/echo", "ran"], {
      dir,
      env: { PATH: "", HOME: undefined },
    });
    expect(noPath).toMatchObject({ status: 0, stdout: "ran\n", stderr: "" });
    const notFound = await exclusive(["run", "t", "no-such-program"], { dir, env: { PATH: "" } });
    expect(notFound.status).toBe(127);
    expect(dir.list()).toEqual([]);
  });

  test("an odd lock directory: relative, with a newline, or missing", async () => {
    using dir = new TempDir();
    mkdirSync(join(dir.path, "a\nb"));
    const at = (value: string) =>
      exclusive(["run", "t", "echo", "ran"], { cwd: dir.path, env: { EXCLUSIVE_DIR: value } });
    for (const value of ["a\nb", ".", "./a\nb/", `${dir.path}//`])
      expect(await at(value)).toMatchObject({ status: 0, stdout: "ran\n", stderr: "" });
    for (const value of ["missing", "/dev/null", "\x1b[31m"]) {
      const { status, stdout, stderr } = await at(value);
      expect({ status, stdout }).toEqual({ status: 73, stdout: "" });
      harmless(stderr);
    }
  });

  test("closed stdin, stdout and stderr: the lock file does not take their place", async () => {
    using dir = new TempDir();
    for (const closed of ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]) {
      const inner = `echo out; echo err >&2; cat "$EXCLUSIVE_LOCKFILE" >"${dir.path}.record"; exit 7`;
      const script = `"$0" run t sh -c ${Bun.$.escape(inner)} ${closed}`;
      const { status } = await command(["sh", "-c", script, binary], { dir });
      expect({ closed, status }).toEqual({ closed, status: 7 });
      const record = readFileSync(`${dir.path}.record`, "utf8");
      await Bun.file(`${dir.path}.record`).delete();
      expect(record).toMatch(/^\d+\n\{.*\}\n$/);
    }
    expect(dir.list()).toEqual([]);
  });
});
