/** The rule of the layout: which part of `src/` may use which, and where the operating system is met. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { posix } from "node:path";
import { cyclesOf, importsOf, repeatedLines, type Sources, withoutComments } from "./support/modules.ts";
import { root } from "./support/paths.ts";

/** The parts of `src/`. A file belongs to the first part whose pattern fits; a file outside of all is an error. */
const PARTS = {
  base: /^src\/(errors|duration)\.ts$/,
  os: /^src\/os\//,
  record: /^src\/(name|holder|events)\.ts$/,
  "store/file": /^src\/store\/file\//,
  "store/postgres": /^src\/store\/postgres\//,
  "store/mysql": /^src\/store\/mysql\//,
  "store/redis": /^src\/store\/redis\//,
  "store/etcd": /^src\/store\/etcd\//,
  store: /^src\/store\/[^/]+$/,
  lock: /^src\/(lock|lock-options|lock-record|exclusive|acquire)\.ts$/,
  logger: /^src\/logger\.ts$/,
  index: /^src\/index\.ts$/,
  main: /^src\/command\/main\.ts$/,
  dispatch: /^src\/command\/dispatch\.ts$/,
  /** These describe the command tree: help and the answers of completion. */
  describers: /^src\/command\/(help|completions\/answer)\.ts$/,
  commands: /^src\/command\/commands\.ts$/,
  "a command": /^src\/command\/[^/]+$/,
  cli: /^src\/command\/cli\//,
  output: /^src\/command\/output\//,
  "command/run": /^src\/command\/run\//,
  "command/flock": /^src\/command\/flock\//,
  "command/doctor": /^src\/command\/doctor\//,
  "command/history": /^src\/command\/history\//,
  "command/man": /^src\/command\/man\//,
  completions: /^src\/command\/completions\//,
} as const;
type Part = keyof typeof PARTS;

const BELOW_STORE: readonly Part[] = ["record", "os", "base"];
const BELOW_LOCK: readonly Part[] = ["store", "store/file", ...BELOW_STORE];
const LIBRARY: readonly Part[] = ["lock", "logger", ...BELOW_LOCK];
const STAGES: readonly Part[] = [
  "command/run",
  "command/flock",
  "command/doctor",
  "command/history",
  "command/man",
  "completions",
];
const FOR_COMMANDS: readonly Part[] = ["cli", "output", ...LIBRARY];

/**
 * What each part may use besides itself: `command → (lock, exclusive, acquire) → store → (name, holder) → os`, and
 * inside command/ `main → dispatch → (help, answers) → commands → cli, output, run, flock, doctor`. What is lower may be used from any
 * height.
 */
const MAY_USE: Record<Part, readonly Part[]> = {
  base: [],
  os: ["base"],
  record: ["os", "base"],
  "store/file": ["store", ...BELOW_STORE],
  "store/postgres": ["store", ...BELOW_STORE],
  "store/mysql": ["store", ...BELOW_STORE],
  "store/redis": ["store", ...BELOW_STORE],
  "store/etcd": ["store", ...BELOW_STORE],
  store: ["store/file", "store/postgres", "store/mysql", "store/redis", "store/etcd", ...BELOW_STORE],
  lock: ["logger", ...BELOW_LOCK],
  logger: ["base"],
  index: LIBRARY,
  main: ["dispatch", ...LIBRARY],
  dispatch: ["describers", "commands", "a command", ...STAGES, ...FOR_COMMANDS],
  describers: ["commands", "completions", ...FOR_COMMANDS],
  commands: ["a command", ...STAGES, ...FOR_COMMANDS],
  "a command": [...STAGES, ...FOR_COMMANDS],
  cli: FOR_COMMANDS,
  output: FOR_COMMANDS,
  "command/run": FOR_COMMANDS,
  "command/flock": FOR_COMMANDS,
  "command/doctor": FOR_COMMANDS,
  "command/history": FOR_COMMANDS,
  "command/man": [],
  completions: [],
};

/** These import nothing at all of `src/`, not even one another. */
const ALONE: readonly Part[] = ["base"];
/** Loaded when its URL is used, never before. */
const LAZY: readonly Part[] = ["store/postgres", "store/mysql", "store/redis", "store/etcd"];
/** The packages, and the files that may import them. What is of the runtime is free, but for bun:ffi. */
const PACKAGES: Record<string, RegExp> = {
  "bun:ffi": PARTS.os,
  bun: /./,
  "consola/core": PARTS.logger,
  citty: /^src\/command\//,
};
/** Only os/ may contain these, comments aside. */
const OS_ONLY =
  /\bbun:ffi\b|\bBun\.FFI\b|\bBun as [^)]*FFI\b|\/proc\/|\bprocess\.(platform|arch)\b|\/bin\/ps\b/;
const MOST_LINES = 300;
const REPEATED_LINES = 8;

/** What breaks the rule today. What is listed here and no longer needed fails the test as well. */
const EXCEPTIONS: readonly string[] = [];

const partOf = (file: string): Part | undefined =>
  (Object.keys(PARTS) as Part[]).find((part) => PARTS[part].test(file));

/** Each breach of the rule, as one line. */
function breaches(sources: Sources): string[] {
  const found = new Set<string>();
  const graph = new Map<string, string[]>();
  for (const [file, text] of sources) {
    const part = partOf(file);
    if (part === undefined) found.add(`${file} belongs to no part`);
    graph.set(file, []);
    for (const { target, static: isStatic } of importsOf(file, text)) {
      if (!target.startsWith("src/")) {
        if (!target.startsWith("node:") && PACKAGES[target]?.test(file) !== true)
          found.add(`${file} imports ${target}`);
        continue;
      }
      graph.get(file)!.push(target);
      const used = partOf(target);
      if (part === undefined || used === undefined) continue;
      const allowed = used === part ? !ALONE.includes(part) : MAY_USE[part].includes(used);
      if (!allowed) found.add(`${file} imports ${target}`);
      if (isStatic && used !== part && LAZY.includes(used)) found.add(`${file} loads ${target} at once`);
    }
    if (part !== "os" && OS_ONLY.test(withoutComments(file, text))) found.add(`${file} knows the OS`);
    if (text.trimEnd().split("\n").length > MOST_LINES)
      found.add(`${file} is longer than ${MOST_LINES} lines`);
  }
  for (const repeat of repeatedLines(sources, REPEATED_LINES)) found.add(repeat);
  for (const cycle of cyclesOf(graph)) found.add(`cycle: ${[...cycle, cycle[0]].join(" → ")}`);
  return [...found].sort();
}

/** Every TypeScript file of `src/`. */
const SOURCE: Sources = new Map(
  Array.from(new Bun.Glob("src/**/*.ts").scanSync(root))
    .filter((path) => !path.endsWith(".d.ts"))
    .sort()
    .map((path) => [path, readFileSync(`${root}/${path}`, "utf8")]),
);

test("src/ keeps the rule of the layout, except where EXCEPTIONS names a breach, and names no other", () => {
  expect(breaches(SOURCE)).toEqual([...EXCEPTIONS].sort());
});

/** The breaches in these files alone. */
const planted = (...files: [path: string, text: string][]) => breaches(new Map(files));

test("a planted upward import and a planted cycle are found in src/ as it is", () => {
  const known = breaches(SOURCE);
  const upward: [string, string] = ["src/os/planted.ts", 'import "../lock.ts";'];
  expect(breaches(new Map([...SOURCE, upward]))).toEqual(
    [...known, "src/os/planted.ts imports src/lock.ts"].sort(),
  );
  const cycle: [string, string][] = [
    ["src/store/planted1.ts", 'import "./planted2.ts";'],
    ["src/store/planted2.ts", 'import "./planted1.ts";'],
  ];
  const found = "cycle: src/store/planted1.ts → src/store/planted2.ts → src/store/planted1.ts";
  expect(breaches(new Map([...SOURCE, ...cycle]))).toEqual([...known, found].sort());
});

test.each([
  ["static", 'import { Lock } from "../lock.ts";'],
  ["static, for its effects", 'import "../lock.ts";'],
  ["of a type", 'import type { Lock } from "../lock.ts";'],
  ["of a type in place", 'export let lock: import("../lock.ts").Lock;'],
  ["dynamic", 'export const load = () => import("../lock.ts");'],
  ["by require", 'export const { Lock } = require("../lock.ts");'],
  ["exported from", 'export { Lock } from "../lock.ts";'],
  ["a type exported from", 'export type { Lock } from "../lock.ts";'],
  ["all of it exported from", 'export * from "../lock.ts";'],
])("an upward import is found: %s", (_, text) => {
  expect(planted(["src/os/planted.ts", text])).toEqual(["src/os/planted.ts imports src/lock.ts"]);
});

test.each([
  ["errors.ts imports anything", "src/errors.ts", "src/name.ts"],
  ["duration.ts imports errors.ts", "src/duration.ts", "src/errors.ts"],
  ["os/ imports a record", "src/os/planted.ts", "src/holder.ts"],
  ["name.ts imports a store", "src/name.ts", "src/store/store.ts"],
  ["a store imports the lock", "src/store/planted.ts", "src/lock.ts"],
  ["an engine imports another", "src/store/redis/planted.ts", "src/store/etcd/etcd.ts"],
  ["the file store imports an engine", "src/store/file/planted.ts", "src/store/redis/redis.ts"],
  ["the lock imports command/", "src/acquire.ts", "src/command/run.ts"],
  ["the library's entry imports command/", "src/index.ts", "src/command/run.ts"],
  ["command/ imports the library's entry", "src/command/run.ts", "src/index.ts"],
  ["cli/ imports a command", "src/command/cli/planted.ts", "src/command/list.ts"],
  ["output/ imports a command", "src/command/output/planted.ts", "src/command/list.ts"],
  ["run/ imports a command", "src/command/run/planted.ts", "src/command/stop.ts"],
  ["run/ imports a part of flock", "src/command/run/planted.ts", "src/command/flock/getopt.ts"],
  ["a command imports the list of commands", "src/command/list.ts", "src/command/commands.ts"],
  ["the list of commands imports the dispatcher", "src/command/commands.ts", "src/command/dispatch.ts"],
])("a breach is found: %s", (_, file, target) => {
  const specifier = `./${posix.relative(posix.dirname(file), target)}`;
  expect(planted([file, `import type { Any } from "${specifier}";`])).toEqual([`${file} imports ${target}`]);
});

test("a file that belongs to no part is found", () => {
  expect(planted(["src/planted.ts", ""])).toEqual(["src/planted.ts belongs to no part"]);
});

test("a cycle is found however long it is, also through types and dynamic imports", () => {
  const files: [string, string][] = [
    ["src/store/one.ts", 'import type { Two } from "./two.ts";'],
    ["src/store/two.ts", 'export const three = () => import("./three.ts");'],
    ["src/store/three.ts", 'export * from "./one.ts";'],
  ];
  expect(planted(...files)).toEqual([
    "cycle: src/store/one.ts → src/store/two.ts → src/store/three.ts → src/store/one.ts",
  ]);
  expect(planted(...files.slice(0, 2))).toEqual([]);
});

test.each([
  ["/proc/", 'export const text = "/proc/self/stat";'],
  ["/proc/ in a template", "export const text = (pid: number) => `/proc/$" + "{pid}/stat`;"],
  ["bun:ffi in the text of a worker", "export const program = 'import { dlopen } from \"bun:ffi\"';"],
  ["Bun.FFI", "export const { ptr } = Bun.FFI;"],
  ["process.platform", 'export const linux = process.platform === "linux";'],
  ["process.arch", "export const { length } = process.arch;"],
  ["ps", 'export const ps = "/bin/ps";'],
])("only os/ may contain it, comments aside: %s", (_, text) => {
  expect(planted(["src/store/planted.ts", text])).toEqual(["src/store/planted.ts knows the OS"]);
  expect(planted(["src/os/planted.ts", text])).toEqual([]);
  expect(planted(["src/store/planted.ts", `/* ${text} */\n// ${text}`])).toEqual([]);
});

test("an engine that is loaded before its URL is used is found, one that is loaded on demand is allowed", () => {
  const file = "src/store/planted.ts";
  expect(planted([file, 'import { RedisStore } from "./redis/redis.ts";'])).toEqual([
    `${file} loads src/store/redis/redis.ts at once`,
  ]);
  expect(planted([file, 'export const engine = () => import("./redis/redis.ts");'])).toEqual([]);
});

test("a package is imported where it has its use, and nowhere else", () => {
  const importing = (name: string, file: string) => planted([file, `import "${name}";`]);
  expect(importing("citty", "src/command/cli/planted.ts")).toEqual([]);
  expect(importing("consola/core", "src/logger.ts")).toEqual([]);
  for (const name of ["left-pad", "citty", "consola/core"])
    expect(importing(name, "src/store/planted.ts")).toEqual([`src/store/planted.ts imports ${name}`]);
  expect(importing("bun:ffi", "src/name.ts")).toContain("src/name.ts imports bun:ffi");
});

test("a file may have 300 lines and no more", () => {
  const lines = (count: number) => "export {};\n\n".repeat(count / 2);
  expect(planted(["src/os/planted.ts", lines(300)])).not.toContain(
    "src/os/planted.ts is longer than 300 lines",
  );
  expect(planted(["src/os/planted.ts", lines(302)])).toContain("src/os/planted.ts is longer than 300 lines");
});

test("eight lines that stand twice are found, in two files and in one; seven are allowed", () => {
  const lines = (count: number) => Array.from({ length: count }, (_, i) => `call(${i});`);
  const repeats = (...texts: string[]) =>
    repeatedLines(new Map(texts.map((text, index) => [`file${index}.ts`, text])), 8);
  const spread = ["import { a } from 'a';", "", "  // a comment", ...lines(4), "", "}", ...lines(8).slice(4)];
  expect(repeats(lines(8).join("\n"), spread.join("\n"))).toEqual([
    "file1.ts repeats file0.ts from: call(0);",
  ]);
  expect(repeats([...lines(8), "between();", ...lines(8)].join("\n"))).toEqual([
    "file0.ts repeats file0.ts from: call(0);",
  ]);
  expect(repeats(lines(20).join("\n"), lines(20).join("\n"))).toHaveLength(2);
  expect(repeats(lines(7).join("\n"), lines(7).join("\n"))).toEqual([]);
  expect(repeats("same();\n".repeat(15))).toEqual([]);
});
