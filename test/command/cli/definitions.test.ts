/** Each command is a citty definition; help, completion and the manual page name exactly its options. */
import { describe, expect, test } from "bun:test";
import { basename } from "node:path";
import { type Command, operandsOf, optionsOf } from "../../../src/command/cli/define.ts";
import { COMMANDS } from "../../../src/command/commands.ts";
import { root } from "../../support/paths.ts";
import { exclusive } from "../../support/process.ts";

/** The files in src/command that are not commands. */
const OTHERS = ["main", "dispatch", "commands"];

const names = [...new Bun.Glob("*.ts").scanSync(`${root}/src/command`)]
  .map((file) => basename(file, ".ts"))
  .filter((name) => !OTHERS.includes(name))
  .sort();

const definitionOf = async (name: string): Promise<Command> =>
  (await import(`${root}/src/command/${name}.ts`)).default;

/** The long options in a text, each once. */
const longOptions = (text: string) => [...new Set(text.match(/(?<![\w-])--[a-z][\w-]*/g))].sort();

const expected = async (name: string) =>
  [...optionsOf((await definitionOf(name)).args).map(([long]) => `--${long}`), "--help"].sort();

test("every file in src/command but the entry is a command of the tree, or help", () => {
  expect(names).toEqual([...Object.keys(COMMANDS), "help"].sort());
});

describe.each(names)("%s", (name) => {
  test("its file default-exports a citty definition", async () => {
    const { meta, args, run } = await definitionOf(name);
    expect(meta).toMatchObject({ name, description: expect.stringMatching(/^\S.*\S$/) });
    expect(meta.examples.length).toBeGreaterThan(0);
    expect(run).toBeFunction();
    if (name !== "help") expect((await COMMANDS[name]!()) as unknown).toBe(await definitionOf(name));
    for (const [arg, { type, description, alias, valueHint, options }] of Object.entries(args)) {
      expect({ arg, type }).toEqual({
        arg,
        type: expect.stringMatching(/^(boolean|string|enum|positional)$/),
      });
      expect(description).toMatch(/^\S.*[^.\s]$/);
      if (alias !== undefined) expect(alias).toMatch(/^[A-Za-z]$/);
      expect(valueHint !== undefined).toBe(type === "string" || (type === "positional" && !!valueHint));
      expect(options !== undefined).toBe(type === "enum");
    }
    const letters = Object.values(args).flatMap(({ alias = [] }) => alias);
    expect(letters).toEqual([...new Set(letters)]);
  });
});

// flock has flock(1)'s own help and getopt, and `help --help` is no page.
describe.each(names.filter((name) => name !== "flock" && name !== "help"))("%s", (name) => {
  test("help --all names exactly its options, and its operands", async () => {
    const { stdout } = await exclusive(["help", "--all", name]);
    const [usage = "", ...rows] = stdout.trimEnd().split("\n");
    const { args } = await definitionOf(name);
    expect(usage).toBe(`Usage: exclusive ${name} [OPTION...] ${operandsOf(args).join(" ")}`.trimEnd());
    const named = rows.flatMap(
      (row) => /^ {2}(?:-(\w), | {4})--([\w-]+)/.exec(row)?.slice(1).join(" ") ?? [],
    );
    const defined = optionsOf(args).map(([long, { alias = "" }]) => `${alias} ${long}`);
    expect(named.toSorted()).toEqual([...defined, "h help"].toSorted());
  });

  test("completion offers exactly its options", async () => {
    const { stdout } = await exclusive(["completion", "--answer", name, "-"]);
    const offered = stdout
      .trimEnd()
      .split("\n")
      .map((line) => line.split("\t")[0]!);
    expect(offered.sort()).toEqual(await expected(name));
  });

  test("the manual page has exactly its options", async () => {
    const page = await Bun.file(`${root}/docs/exclusive.1`).text();
    const [, generated = ""] = page.split(`.\\" options of ${name}:`);
    const tags = generated.split('.\\" end of')[0]!.replaceAll("\\-", "-").split("\n");
    const named = tags.filter((_, i) => tags[i - 1] === ".TP").join(" ");
    expect([...longOptions(named.replaceAll(/\\f[BIR]/g, "")), "--help"].sort()).toEqual(
      await expected(name),
    );
  });
});
