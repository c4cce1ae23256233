import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { optionsOf } from "../../src/command/cli/define.ts";
import { loadCommands } from "../../src/command/commands.ts";
import { plainText } from "../../src/command/man/plain-text.ts";
import { binary, root } from "../support/paths.ts";
import { exclusive } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TerminalProcess } from "../support/terminal.ts";
import { until } from "../support/until.ts";

const page = readFileSync(`${root}/docs/exclusive.1`, "utf8");

test("into a pipe exclusive man prints the page's source", async () => {
  expect(await exclusive(["man"])).toMatchObject({ status: 0, stdout: page, stderr: "" });
});

test.if(required("man", "man-db"))("on a terminal man(1) shows it, with its pager", async () => {
  await using shown = new TerminalProcess([binary, "man"], {
    env: { MANPAGER: "cat", PAGER: "cat" },
  });
  await shown.shows("User Commands");
  await until(() => shown.screen.join("\n").includes("EXIT STATUS"), "a section"); // bold by overstrikes
  expect(await shown.result).toMatchObject({ status: 0 });
});

test("on a terminal without man(1) it is text: every section and option, nothing of roff, no line too wide", async () => {
  await using shown = new TerminalProcess([binary, "man"], { columns: 60, env: { PATH: "/nowhere" } });
  await shown.shows("SEE ALSO");
  expect(await shown.result).toMatchObject({ status: 0 });
  const text = plainText(page, 60);
  expect(shown.screen.join("\n").trim()).toBe(text.trim());
  const prose = text.split("\n").filter((line) => !/^ {0,11}(exclusive |\/)/.test(line));
  expect(prose.filter((line) => line.length > 60 && / \S+ /.test(line.trim()))).toEqual([]);
  expect(text).not.toMatch(/\\|^\.|\x1b/m);
  for (const section of ["SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"])
    expect(text).toContain(`\n${section}\n`);
  for (const { args } of await loadCommands())
    for (const [long] of optionsOf(args)) expect(text).toContain(`--${long}`);
});
