/** How the program and its pages speak: words that they do not use, and links that lead somewhere. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import ts from "typescript";
import { root } from "./support/paths.ts";
import { exclusive } from "./support/process.ts";

/** Each is said with a common word instead: the holder, the waiter, another process; up to, forever, the running job. */
const DROPPED =
  /\b(whoever|nobody|somebody|so long|for ever|of ours|is none|anew|at work|is at it|in that moment|the one that (has|is|runs|waits|holds)|we may|goes with|does not go with|say the rest|has the whole|`[^`\n]+` (says|tells|knows))\b/gi;

/** Durations have one format, `4s`: a number with ` s` behind it is another one. */
const OTHER_DURATION = /(\d|\}) s\b(?! of|\/)/g;

const pages = [
  "README.md",
  "SECURITY.md",
  "CONTRIBUTING.md",
  "docs/exclusive.1",
  ...new Bun.Glob("docs/*.md").scanSync(root),
];

const textOf = (file: string): string => readFileSync(`${root}/${file}`, "utf8");

/** The texts in strings of the program: what it may print. */
function stringsOf(file: string): string[] {
  const source = ts.createSourceFile(file, textOf(file), ts.ScriptTarget.Latest);
  const found: string[] = [];
  const visit = (node: ts.Node): void => {
    if (
      ts.isStringLiteralLike(node) ||
      ts.isTemplateHead(node) ||
      ts.isTemplateMiddle(node) ||
      ts.isTemplateTail(node)
    )
      found.push(node.text);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

const found = (place: string, text: string, pattern: RegExp): string[] =>
  [...text.matchAll(pattern)].map(({ index }) => {
    const around = text.slice(Math.max(0, index - 30), index + 40);
    return `${place}: …${around.replaceAll("\n", " ")}…`;
  });

test("no page has a word that is dropped", () => {
  expect(pages.flatMap((file) => found(file, textOf(file), DROPPED))).toEqual([]);
});

test("no text that the program may print has a word that is dropped, or another format of durations", () => {
  const files = [...new Bun.Glob("src/**/*.ts").scanSync(root)];
  expect(files.length).toBeGreaterThan(100);
  const strings = files.flatMap((file) => stringsOf(file).map((text) => [file, text] as const));
  expect(strings.flatMap(([file, text]) => found(file, text, DROPPED))).toEqual([]);
  expect(strings.flatMap(([file, text]) => found(file, text, OTHER_DURATION))).toEqual([]);
});

test("the README has at most 1,200 words", () => {
  expect(textOf("README.md").split(/\s+/).filter(Boolean).length).toBeLessThanOrEqual(1200);
});

/** The anchors of a page: its headings as GitHub names them. */
const anchorsOf = (file: string): string[] =>
  [...textOf(file).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );

test("every link and picture of the pages leads to a file of this project, and to a heading that it has", () => {
  const broken: string[] = [];
  let links = 0;
  for (const file of [...pages, "bench/README.md", "CHANGELOG.md"]) {
    for (const [, target = ""] of textOf(file).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      links++;
      const [path, anchor] = target.split("#");
      const to = path === "" ? file : resolve("/", dirname(file), path!).slice(1);
      if (!existsSync(`${root}/${to}`) || (anchor !== undefined && !anchorsOf(to).includes(anchor)))
        broken.push(`${file}: ${target}`);
    }
  }
  expect(links).toBeGreaterThan(40);
  expect(broken).toEqual([]);
});

test("every command and option that a page names is one", async () => {
  const { loadCommands } = await import("../src/command/commands.ts");
  const commands = await loadCommands();
  const named = pages.flatMap((file) =>
    [...textOf(file).matchAll(/`exclusive ([a-z]+)[^`\n]*`/g)].map(([line, name]) => ({ file, line, name })),
  );
  expect(named.length).toBeGreaterThan(30);
  const known = [...commands.map(({ meta }) => meta.name), "help"];
  expect(named.filter(({ name }) => !known.includes(name!))).toEqual([]);
});

test("a message of the program begins with its name, in lower case, and has no full stop", async () => {
  for (const args of [["run"], ["stop", "-s", "FOO", "x"], ["frob"], ["run", "x", "--", "/no/such"]]) {
    const [line = ""] = (await exclusive(args)).stderr.split("\n");
    expect(line).toMatch(/^exclusive: [^A-Z].*[^.]$/);
  }
});
