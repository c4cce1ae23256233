/** The manual page: no warning, every command and option that the program has, and nothing out of date. */
import { expect, test } from "bun:test";
import { withOptions } from "../docs/manual.ts";
import { optionsOf } from "../src/command/cli/define.ts";
import { loadCommands } from "../src/command/commands.ts";
import { command } from "./support/process.ts";
import { required } from "./support/required.ts";

const page = `${import.meta.dir}/../docs/exclusive.1`;

test.if(required("man", "man-db"))("man shows it without an error or warning", async () => {
  const shown = await command(["man", "--warnings", "--encoding=UTF-8", "-l", page], {
    env: { MANWIDTH: "80", LC_ALL: "C.UTF-8" },
  });
  expect(shown).toMatchObject({ status: 0, stderr: "" });
  expect(shown.stdout).toContain("EXIT STATUS");
});

test("the manual page has every command and option", async () => {
  const text = (await Bun.file(page).text()).replaceAll("\\-", "-");
  for (const { meta, args } of await loadCommands()) {
    expect(text).toContain(meta.name);
    for (const [long, { alias }] of optionsOf(args)) {
      expect(text).toContain(`--${long}`);
      if (alias) expect(text).toContain(`-${alias}`);
    }
  }
});

test("its options are those of the definitions (npm run manual writes them)", async () => {
  const text = await Bun.file(page).text();
  expect(await withOptions(text)).toBe(text);
});
