/** The manual page: no warning, and every command and option that the program has. */
import { expect, test } from "bun:test";
import { COMMANDS } from "../src/command/commands.ts";
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
  for (const [name, { load }] of Object.entries(COMMANDS)) {
    expect(text).toContain(name);
    const { options } = await load();
    for (const [long, { short }] of Object.entries(options)) {
      expect(text).toContain(`--${long}`);
      if (short) expect(text).toContain(`-${short}`);
    }
  }
});
