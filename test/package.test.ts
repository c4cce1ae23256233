/** The published package: its files, and its features once installed. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { copyFileSync, mkdirSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from "node:fs";
import { addPackage, packInto } from "./support/package.ts";
import { root } from "./support/paths.ts";
import { command, Process, type StartOptions } from "./support/process.ts";
import { TempDir } from "./support/temp-dir.ts";

const bun = process.execPath;
const home = new TempDir();
const project = home.file("project");
const app = home.file("workspace/packages/app");
let tarball: string;
afterAll(() => home[Symbol.dispose]());

/** Runs a command that must succeed. */
async function done(argv: string[], options?: StartOptions): Promise<string> {
  const { status, stdout, stderr } = await command(argv, options);
  if (status !== 0) throw new Error(`${argv.join(" ")}: ${status}\n${stdout}\n${stderr}`);
  return stdout;
}

/** A project with the package, and the files of the fixture. */
async function install(dir: string, workspaceRoot = dir): Promise<void> {
  await addPackage(dir, tarball);
  for (const file of ["features.ts", "main.ts"])
    copyFileSync(`${root}/test/fixtures/package/${file}`, `${dir}/${file}`);
  for (const types of ["bun-types", "typescript"])
    symlinkSync(`${root}/node_modules/${types}`, `${workspaceRoot}/node_modules/${types}`);
}

beforeAll(async () => {
  tarball = await packInto(home);
  await install(project);
  mkdirSync(home.file("workspace"));
  writeFileSync(
    home.file("workspace/package.json"),
    JSON.stringify({ private: true, workspaces: ["packages/*"] }),
  );
  await install(app, home.file("workspace"));
}, 300_000);

test("contains what a user needs, and nothing else", async () => {
  const files = (await done(["tar", "-tzf", tarball])).trim().split("\n");
  for (const needed of [
    "package.json",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "dist/lib/index.js",
    "dist/lib/index.d.ts",
  ])
    expect(files).toContain(`package/${needed}`);
  const odd = files.filter(
    (file) =>
      !/^package\/(package\.json|README\.md|CHANGELOG\.md|LICENSE|docs\/exclusive\.1|dist\/lib\/(exclusive|.*\.js)|dist\/lib\/command\/completions\/\w+\.(bash|fish|zsh)|dist\/lib\/(?!command\/).*\.d\.ts)$/.test(
        file,
      ),
  );
  expect(odd).toEqual([]);
  const manifest = JSON.parse(await done(["tar", "-xzOf", tarball, "package/package.json"]));
  expect(Object.keys(manifest.dependencies)).toEqual(["citty", "consola"]);
});

test("passes publint", async () => {
  await done([`${root}/node_modules/.bin/publint`, "--strict", tarball]);
}, 120_000);

describe("types", () => {
  const strict = {
    strict: true,
    noUncheckedIndexedAccess: true,
    exactOptionalPropertyTypes: true,
    noEmit: true,
    target: "ESNext",
    lib: ["ESNext"],
    types: ["bun-types"],
    skipLibCheck: true,
  };
  const check = (compilerOptions: Record<string, unknown>, ...files: string[]) => {
    const tsconfig = `${project}/tsconfig.check.json`;
    writeFileSync(tsconfig, JSON.stringify({ compilerOptions: { ...strict, ...compilerOptions }, files }));
    return done([`${root}/node_modules/.bin/tsc`, "--project", tsconfig]);
  };

  test.each([
    ["bundler", "ESNext"],
    ["node16", "node16"],
  ])(
    "under strict, moduleResolution %s",
    async (moduleResolution, module) => {
      await check({ moduleResolution, module }, "features.ts", "main.ts");
    },
    120_000,
  );

  test("the declarations have no errors and no any", async () => {
    // Without the types of Bun, so that only this package's are checked. The one foreign type that they use is declared.
    writeFileSync(
      `${project}/any.ts`,
      `import * as everything from "exclusiveprocess";
       declare global { interface AbortSignal { readonly aborted: boolean } }
       type IsAny<T> = 0 extends 1 & T ? true : false;
       type AnyIn<T> = { [K in keyof T]-?: IsAny<T[K]> extends true ? K : never }[keyof T];
       const none: never[] = [] as AnyIn<typeof everything>[];
       const inLock: never[] = [] as AnyIn<everything.Lock>[];
       const inError: never[] = [] as AnyIn<everything.CannotAcquireLock>[];
       const lock = new everything.Lock({ name: "t" });
       const held: boolean = lock.held;
       // @ts-expect-error a lock's name is a string
       new everything.Lock({ name: 5 });
       // @ts-expect-error no such option
       new everything.Lock({ nam: "t" });
       // @ts-expect-error internals are not public
       lock.lease;
       export { none, inLock, inError, held };`,
    );
    await check(
      {
        moduleResolution: "bundler",
        module: "ESNext",
        skipLibCheck: false,
        types: [],
      },
      "any.ts",
    );
  }, 120_000);
});

describe("each feature works", () => {
  const expected = (...names: string[]) => ({
    held: true,
    pidInFile: true,
    refusal: [true, true, true],
    messageNamesPid: true,
    timeout: true,
    waited: true,
    deleted: true,
    logged: ["acquired", "released", "acquired", "released"],
    longName: true,
    wrapped: [3, 42, "x2"],
    names,
    error: ["ENOENT", "open"],
    forever: true,
  });
  async function shows(argv: string[], cwd: string, name: string): Promise<void> {
    using dir = new TempDir();
    expect(JSON.parse(await done(argv, { dir, cwd }))).toEqual(expected(name, name));
    expect(dir.list()).toEqual([]);
  }

  test("in a script", () => shows([bun, "features.ts"], project, `${realpathSync(project)}/features.ts`));

  test("in an imported module", () =>
    shows([bun, "main.ts"], project, `${realpathSync(project)}/features.ts`));

  test("in a workspace", () => shows([bun, "main.ts"], app, `${realpathSync(app)}/features.ts`));

  test.each([[[]], [["--minify", "--sourcemap", "--format=esm"]]])(
    "in a program compiled with %j",
    async (options) => {
      const outfile = `${project}/program`;
      await done([bun, "build", "--compile", ...options, "main.ts", "--outfile", outfile], { cwd: project });
      await shows([outfile], home.path, realpathSync(outfile));
    },
  );

  test("in a bundle", async () => {
    await done([bun, "build", "--target=bun", "main.ts", "--outdir", "out"], { cwd: project });
    await shows([bun, "out/main.js"], project, `${realpathSync(project)}/out/main.js`);
  });

  test("logging by consola, in a project and in a compiled program", async () => {
    writeFileSync(
      `${project}/log.ts`,
      `import { Lock } from "exclusiveprocess"; new Lock({ name: "t" }).acquireSync().releaseSync();`,
    );
    const outfile = `${project}/log`;
    await done([bun, "build", "--compile", "log.ts", "--outfile", outfile], { cwd: project });
    for (const argv of [[bun, "log.ts"], [outfile]]) {
      using dir = new TempDir();
      const run = await command(argv, { dir, cwd: project, env: { EXCLUSIVE_LOG: "info" } });
      expect(run).toMatchObject({ status: 0, stdout: "" });
      expect(run.stderr).toMatch(/acquired 't'.*\n.*released 't'/);
    }
  });
});

test("bunx exclusive is the command", async () => {
  using dir = new TempDir();
  const { version } = JSON.parse(readFileSync(`${root}/package.json`, "utf8"));
  expect(await done([bun, "x", "exclusive", "--version"], { cwd: project })).toContain(version);
  await using held = new Process(
    [bun, "x", "exclusive", "run", "t", "--", "sh", "-c", "echo begun; exec sleep 60"],
    { dir, cwd: project },
  );
  await held.says("begun");
  const run = (...args: string[]) =>
    command([`${project}/node_modules/.bin/exclusive`, ...args], { dir, cwd: project });
  expect(await run("run", "t", "--", "echo", "no")).toMatchObject({ status: 75, stdout: "" });
  expect(await run("run", "u", "--", "sh", "-c", "exit 5")).toMatchObject({ status: 5, stderr: "" });
  expect(await run("run", "--wiat", "u", "--", "true")).toMatchObject({ status: 64, stdout: "" });
});
