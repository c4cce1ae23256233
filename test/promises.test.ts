/** Every promise has a test: docs/promises.md, both its columns, and that no option and no line of the README is left out. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { optionsOf } from "../src/command/cli/define.ts";
import { COMMANDS } from "../src/command/commands.ts";
import { root } from "./support/paths.ts";

const read = (path: string) => readFileSync(join(root, path), "utf8");
/** The text without line breaks and what roff adds to it. */
const plain = (text: string) =>
  text
    .replaceAll(/^\.[A-Z]+ ?/gm, "")
    .replaceAll(/\\f[A-Z]|\\(?=-)|"/g, "")
    .replaceAll(/\s+/g, " ");

const SECTIONS: Record<string, string> = {
  README: "README.md",
  "The manual": "docs/exclusive.1",
  "How it works": "docs/how-it-works.md",
};
const PAGE = read("docs/promises.md");

/** The rows of a section's table: promise, test file, title. */
function rowsOf(section: string) {
  const body = PAGE.split(`\n## ${section}\n`)[1]!.split("\n## ")[0]!;
  return [...body.matchAll(/^\| (.+?) +\| `([^`]+)`: (.+?) +\|$/gm)].map(([, promise, file, title]) => ({
    promise: promise!,
    file: file!,
    title: title!,
  }));
}
const sections = Object.keys(SECTIONS);

test.each(sections)("%s says what is promised", (section) => {
  const page = plain(read(SECTIONS[section]!));
  const rows = rowsOf(section);
  expect(rows.length).toBeGreaterThan(5);
  const missing = rows.filter(({ promise }) => !page.includes(plain(promise.replace(/^`(-.*)`$/, "$1"))));
  expect(missing.map(({ promise }) => promise)).toEqual([]);
});

test.each(sections)("%s: each promise has a test of that name", (section) => {
  const missing = rowsOf(section).filter(({ file, title }) => {
    const name = new RegExp(`["\`]${RegExp.escape(title)} ?["\`]`);
    return !name.test(read(`test/${file}`));
  });
  expect(missing.map(({ file, title }) => `${file}: ${title}`)).toEqual([]);
});

test("every job of the README's table, and every reason to use it, has a row in docs/promises.md", () => {
  const promises = rowsOf("README").map(({ promise }) => promise);
  const readme = read("README.md");
  const jobs = [...readme.matchAll(/^\| .+ \| (`exclusive [^`]+`)/gm)].map(([, line]) => line!);
  const reasons = [...readme.matchAll(/^- (\*\*.+?\*\*)/gm)].map(([, reason]) => reason!);
  expect(jobs.length).toBeGreaterThan(15);
  expect(reasons.length).toBeGreaterThan(3);
  expect([...jobs, ...reasons].filter((line) => !promises.includes(line))).toEqual([]);
});

test("every option of every command has a row in docs/promises.md", async () => {
  const tested = sections
    .flatMap(rowsOf)
    .map(({ promise }) => promise)
    .join("\n");
  for (const load of Object.values(COMMANDS)) {
    const options = optionsOf((await load()).args).map(([name]) => `--${name}`);
    expect(options.filter((option) => !new RegExp(`${option}(?![\\w-])`).test(tested))).toEqual([]);
  }
});
