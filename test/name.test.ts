import { describe, expect, test } from "bun:test";
import { accessSync, constants, mkdirSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import { Lock } from "../src/index.ts";
import { checkName, defaultDirectory, fileName, nameOfFile } from "../src/name.ts";
import { library } from "./support/paths.ts";
import { command } from "./support/process.ts";
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
    expect(() => new Lock({ name: long, dir: dir.path }).acquireSync()).toThrow("already locked by this process");
    lock.releaseSync();
    new Lock({ name: long, dir: dir.path }).acquireSync().releaseSync();
    expect(fileName("n".repeat(240))).toBe(`exclusive_${"n".repeat(240)}.lock`); // just fits
    expect(fileName("n".repeat(241)).length).toBe(255);
  });

  test("files of other programs are not lock files", () => {
    for (const file of ["passwd", "exclusive_.lock", "exclusive_a", "a.lock", "exclusive_%zz.lock"])
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

  test("otherwise /var/lock if it is writable, otherwise the temp directory", async () => {
    let writable = true;
    try {
      accessSync("/var/lock/", constants.W_OK | constants.X_OK);
    } catch {
      writable = false;
    }
    expect(await directoryOf(temp)).toBe(writable ? "/var/lock" : "/tmp/of/mine");
    expect(await directoryOf({ ...temp, EXCLUSIVE_DIR: "" })).toBe(writable ? "/var/lock" : "/tmp/of/mine");
  });

  test.if(process.platform === "linux" && required("strace", "strace"))(
    "/var/lock that cannot be written: TMPDIR, else /tmp",
    async () => {
      const strace = "strace -f -qqq -e signal=none -o /dev/null".split(" ");
      const place = ["-P", realpathSync("/var/lock"), "-P", "/var/lock/"];
      for (const error of ["EACCES", "EROFS", "ENOENT"]) {
        const denied = [...strace, ...place, "-e", `inject=?access,?faccessat:error=${error}`];
        expect(await directoryOf(temp, denied)).toBe("/tmp/of/mine");
        expect(await directoryOf({ ...temp, TMPDIR: undefined }, denied)).toBe("/tmp");
      }
    },
  );

  test("is determined again each time", () => {
    const before = process.env.EXCLUSIVE_DIR;
    process.env.EXCLUSIVE_DIR = "/here";
    expect(defaultDirectory()).toBe("/here");
    if (before === undefined) delete process.env.EXCLUSIVE_DIR;
    else process.env.EXCLUSIVE_DIR = before;
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
