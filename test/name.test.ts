import { describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import fc from "fast-check";
import { Lock } from "../src/index.ts";
import { checkName, defaultDirectory, fileName, nameOfFile } from "../src/name.ts";
import { canMount } from "./support/namespaces.ts";
import { binary, library } from "./support/paths.ts";
import { command, exclusive, hold } from "./support/process.ts";
import { required } from "./support/required.ts";
import { TempDir } from "./support/temp-dir.ts";

/** Any string that can be written as UTF-8. */
const anyName = fc.string({ unit: "grapheme", minLength: 1, maxLength: 120 });

describe("the file's name", () => {
  test.each([
    ["backup", "exclusive_backup.lock"],
    ["a b", "exclusive_a+b.lock"],
    ["a+b", "exclusive_a%2Bb.lock"],
    ["/srv/job.ts", "exclusive_%2Fsrv%2Fjob.ts.lock"],
    ["../../etc/passwd", "exclusive_..%2F..%2Fetc%2Fpasswd.lock"],
    [".", "exclusive_..lock"],
    ["~a_b-c.d", "exclusive_~a_b-c.d.lock"],
    ["100%", "exclusive_100%25.lock"],
    ["ü\n\0", "exclusive_%C3%BC%0A%00.lock"],
    ["🔒", "exclusive_%F0%9F%94%92.lock"],
  ])("of %j is %s", (name, file) => {
    expect(fileName(name)).toBe(file);
  });

  test("can be turned back into the name", () => {
    fc.assert(
      fc.property(anyName, (name) => {
        const file = fileName(name);
        expect(file).toMatch(/^[A-Za-z0-9_.~+%-]+$/);
        expect(Buffer.byteLength(file)).toBeLessThanOrEqual(255);
        if (Buffer.byteLength(name) * 3 < 200) expect(nameOfFile(file)).toBe(name);
      }),
    );
  });

  test.if(required("python3", "python3"))("is quoted as Python's quote_plus does it", async () => {
    const names = fc
      .sample(anyName, { numRuns: 300, seed: 1 })
      .filter((name) => Buffer.byteLength(name) < 70);
    const python = await command(
      [
        "python3",
        "-c",
        "import json, sys, urllib.parse\nprint(json.dumps([urllib.parse.quote_plus(n) for n in json.load(sys.stdin)]))",
      ],
      { stdin: JSON.stringify(names) },
    );
    expect(names.length).toBeGreaterThan(100);
    expect(names.map(fileName)).toEqual(
      (JSON.parse(python.stdout) as string[]).map((quoted) => `exclusive_${quoted}.lock`),
    );
  });

  test("very long names fit, work, and stay distinct", () => {
    using dir = new TempDir();
    const long = "n".repeat(100_000);
    const files = new Set([long, `${long}x`, "ü".repeat(200), `${"ü".repeat(200)}x`].map(fileName));
    expect(files.size).toBe(4);
    for (const file of files) {
      expect(file.length).toBe(255);
      expect(file).toMatch(/^exclusive_.*-[0-9a-f]{64}\.lock$/);
    }
    const lock = new Lock({ name: long, dir: dir.path }).acquireSync();
    using other = new Lock({ name: `${long}x`, dir: dir.path }).acquireSync();
    expect(lock.lockfile).not.toBe(other.lockfile);
    expect(() => new Lock({ name: long, dir: dir.path }).acquireSync()).toThrow(
      "already locked by this process",
    );
    lock.releaseSync();
    new Lock({ name: long, dir: dir.path }).acquireSync().releaseSync();
    expect(fileName("n".repeat(240))).toBe(`exclusive_${"n".repeat(240)}.lock`); // just fits
    expect(fileName("n".repeat(241)).length).toBe(255);
  });

  test("a name that looks like one that was cut has a file of its own", () => {
    const cut = fileName("n".repeat(300)).slice("exclusive_".length, -".lock".length);
    expect(fileName(cut)).not.toBe(fileName("n".repeat(300)));
    expect(nameOfFile(fileName(cut))).not.toBe(cut);
  });

  test("the file of a cut name is read back as its head and the hash", () => {
    const file = fileName("n".repeat(300));
    expect(nameOfFile(file)).toMatch(/^n{175}-[0-9a-f]{64}$/);
    expect(nameOfFile(file)).toBe(file.slice("exclusive_".length, -".lock".length));
  });

  test("names that the program uses for itself are refused", () => {
    for (const name of ["job\0next", "job\0witness"]) expect(() => checkName(name)).toThrow(TypeError);
    expect(checkName("job\0")).toBe("job\0");
  });

  test("files of other programs are not lock files", () => {
    for (const file of [
      "passwd",
      "exclusive_.lock",
      "exclusive_a",
      "a.lock",
      "exclusive_%zz.lock",
      "exclusive_%41.lock",
    ])
      expect(nameOfFile(file)).toBeUndefined();
  });

  test("an empty name is most often an unset variable", () => {
    expect(() => checkName("")).toThrow("is a variable unset?");
    expect(checkName(" ")).toBe(" ");
  });
});

describe("the directory", () => {
  const directoryOf = async (env: Record<string, string | undefined>, prefix: string[] = []) => {
    using dir = new TempDir();
    writeFileSync(
      dir.file("d.ts"),
      `import { Lock } from ${JSON.stringify(library)}; console.log(new Lock().lockfile);`,
    );
    const { status, stdout } = await command([...prefix, process.execPath, dir.file("d.ts")], { env });
    expect(status).toBe(0);
    return stdout.slice(0, stdout.lastIndexOf("/"));
  };
  const temp = { EXCLUSIVE_DIR: undefined, TMPDIR: "/tmp/of/mine//" };

  test("is EXCLUSIVE_DIR, if that is set", async () => {
    expect(await directoryOf({ ...temp, EXCLUSIVE_DIR: "/some/where/" })).toBe("/some/where");
  });

  test("otherwise the same for every user and session: /var/lock where all may write in it, else /tmp", async () => {
    const status = statSync("/var/lock/", { throwIfNoEntry: false });
    const forAll = status !== undefined && (status.mode & 0o1003) === 0o1003;
    for (const env of [temp, { ...temp, EXCLUSIVE_DIR: "" }])
      expect(await directoryOf(env)).toBe(forAll ? "/var/lock" : "/tmp");
  });

  test("is determined again each time", () => {
    const before = process.env.EXCLUSIVE_DIR;
    process.env.EXCLUSIVE_DIR = "/here";
    expect(defaultDirectory()).toEqual({ path: "/here", reason: "EXCLUSIVE_DIR is set" });
    if (before === undefined) delete process.env.EXCLUSIVE_DIR;
    else process.env.EXCLUSIVE_DIR = before;
  });

  test("an empty path, and one that is not UTF-8, is an error: also of the current directory", async () => {
    using dir = new TempDir();
    expect(() => new Lock({ name: "x", dir: "" })).toThrow(TypeError);
    expect(() => new Lock({ name: "x", file: "" })).toThrow(TypeError);
    const script = `cd "$1"; for path in "" "$(printf 'a\\377')"; do
      for option in --dir --file; do "$0" run $option "$path" x -- echo no; echo $?; done; done
      mkdir "$(printf 'd\\377')"; cd "$(printf 'd\\377')"; "$0" run --dir . x -- echo no; echo $?
      EXCLUSIVE_DIR=locks "$0" run x -- echo no; echo $?; "$0" run x -- echo yes`;
    const { stdout, stderr } = await command(["sh", "-c", script, binary, dir.path], { dir });
    expect({ stdout, stderr: stderr.match(/must (not be empty|be text in UTF-8)/g)?.length }).toEqual({
      stdout: `${"64\n".repeat(6)}yes\n`,
      stderr: 6,
    });
  });

  const mounts = {
    "0755, as on RHEL and Arch": ["mount -t tmpfs -o mode=755 none /run/lock", "/tmp"],
    "writable for all and sticky": ["mount -t tmpfs -o mode=1777 none /run/lock", "/var/lock"],
    absent: ["mount -t tmpfs none /run", "/tmp"],
    "a read-only file system": ["mount -t tmpfs -o mode=1777,ro none /run/lock", "/tmp"],
  } as const;
  test.if(canMount).each(Object.entries(mounts))(
    "/run/lock that is %s: root, two users and the library exclude each other, with and without TMPDIR",
    async (_, [mount, directory]) => {
      using dir = new TempDir();
      chmodSync(dir.path, 0o755);
      copyFileSync(binary, dir.file("exclusive"));
      const name = `machine ${crypto.randomUUID()}`;
      writeFileSync(
        dir.file("lib.ts"),
        `import { Lock } from ${JSON.stringify(library)};
         try { new Lock({ name: process.argv[2]! }).acquireSync(); console.log("library: got it"); }
         catch (error) { console.log("library:", error.constructor.name); }`,
      );
      const script = `set -e; ${mount}; cd "$1"; export TMPDIR="$1"
        user() { id="$1"; shift; exec setpriv --reuid "$id" --clear-groups env -u TMPDIR ./exclusive "$@"; }
        user 65534 run "$2" -- sh -c 'echo $$ >&2; exec sleep 60' 2>"$1/pid" &
        until [ -s "$1/pid" ]; do sleep 0.01; done
        for who in root 65533; do
          case $who in root) run="./exclusive";; *) run="setpriv --reuid $who --clear-groups env -u TMPDIR ./exclusive";; esac
          status=0; $run run "$2" -- echo no 2>/dev/null || status=$?; echo "$who $status"
          $run path "$2"; status=0; $run status --quiet "$2" || status=$?; echo "held $status"
        done
        "$3" lib.ts "$2"; "$3" -e 'process.kill(Number(process.argv[1]))' "$(cat "$1/pid")"; wait || :`;
      const run = ["unshare", "--mount", "sh", "-c", script, "sh", dir.path, name, process.execPath];
      const { stdout, stderr } = await command(run, { env: { EXCLUSIVE_DIR: undefined } });
      const path = `${directory}/${fileName(name)}`;
      const each = ["root", "65533"].map((who) => `${who} 75\n${path}\nheld 0\n`);
      expect({ stdout, stderr }).toEqual({
        stdout: `${each.join("")}library: CannotAcquireLock\n`,
        stderr: "",
      });
    },
  );

  test.if(canMount)(
    "that is read-only in this sandbox alone is an error, and no other directory is used",
    async () => {
      const mount = "mount -t tmpfs -o mode=1777 none /run/lock && mount -o remount,bind,ro /run/lock";
      const script = `${mount} || exit 99; exec "$0" run x -- echo no`;
      const run = ["unshare", "--mount", "sh", "-c", script, binary];
      expect(await command(run, { env: { EXCLUSIVE_DIR: undefined } })).toMatchObject({
        status: 73,
        stdout: "",
        stderr: expect.stringContaining("Read-only file system (is this a sandbox?"),
      });
    },
  );

  test("a lock of the same name in the other default directory is mentioned by status and by a refusal", async () => {
    const { path } = defaultDirectory();
    const other = path === "/tmp" ? "/var/lock" : "/tmp";
    if (process.env.EXCLUSIVE_DIR || !existsSync(other)) return;
    const name = `both ${crypto.randomUUID()}`;
    await using there = await hold({}, name, "--dir", other);
    const mention = `is also held in ${other} by pid ${there.pid}`;
    expect((await exclusive(["status", name])).stderr).toContain(mention);
    await using here = await hold({}, name);
    const refused = await exclusive(["run", name, "--", "true"]);
    expect(refused).toMatchObject({ status: 75, stderr: expect.stringContaining(mention) });
    for (const holder of [here, there]) {
      holder.kill();
      await holder.result;
    }
  });
});

describe("the default name", () => {
  const PRINT = `import { exclusive, Lock } from ${JSON.stringify(library)};`;

  test("is the path of the calling file, in a script and in its imports", async () => {
    using dir = new TempDir();
    mkdirSync(dir.file("lib"));
    writeFileSync(
      dir.file("lib/imported.ts"),
      `${PRINT} export const inImported = () => new Lock().name;
       export class Job { @exclusive run() {} @exclusive({}) named() {} }`,
    );
    writeFileSync(
      dir.file("main.ts"),
      `${PRINT} import { inImported, Job } from "./lib/imported.ts";
       class Mine extends Lock {}
       console.log(JSON.stringify([new Lock().name, new Mine().name, Reflect.construct(Lock, []).name,
         eval("new Lock().name"), inImported(), [1].map(() => new Lock().name)[0]]));
       new Job().run(); new Job().named();`,
    );
    const { stdout, stderr } = await command([process.execPath, "main.ts"], {
      cwd: dir.path,
      env: { EXCLUSIVE_LOG: "info", EXCLUSIVE_DIR: dir.path },
    });
    const here = realpathSync(dir.path);
    const [main, imported] = [`${here}/main.ts`, `${here}/lib/imported.ts`];
    expect(JSON.parse(stdout)).toEqual([main, main, main, main, imported, main]);
    expect(stderr.match(/acquired '[^']*'/g)).toEqual([`acquired '${imported}'`, `acquired '${imported}'`]);
  });

  test("is the path that Bun gives the code of bun -e", async () => {
    using dir = new TempDir();
    const { stdout } = await command([process.execPath, "-e", `${PRINT} console.log(new Lock().name)`], {
      cwd: dir.path,
    });
    expect(stdout).toBe(`${realpathSync(dir.path)}/[eval]\n`);
  });

  test.each([[[]], [["--minify", "--bytecode"]], [["--sourcemap"]]])(
    "is the real path of the executable in a compiled program: bun build --compile %p",
    async (options) => {
      using dir = new TempDir();
      writeFileSync(dir.file("job.ts"), `${PRINT} console.log(new Lock().name)`);
      const outfile = dir.file("job");
      const build = [
        process.execPath,
        "build",
        "--compile",
        ...options,
        dir.file("job.ts"),
        "--outfile",
        outfile,
      ];
      expect(await command(build, { cwd: dir.path })).toMatchObject({ status: 0 });
      symlinkSync(outfile, dir.file("link"));
      const path = `${realpathSync(outfile)}\n`;
      expect(await command([dir.file("link")], { cwd: "/" })).toMatchObject({ stdout: path });
      expect(await command(["./job"], { cwd: dir.path })).toMatchObject({ stdout: path });
    },
  );
});
