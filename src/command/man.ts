/** `exclusive man`: the manual page. */
import { defineCommand } from "citty";
import { isTerminal, windowSize } from "../os/terminal.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { parseOptions } from "./cli/options.ts";
import { showWithMan } from "./man/pager.ts";
import { plainText } from "./man/plain-text.ts";
import { write } from "./output/print.ts";

// Set by build.ts. The npm package reads the page from its own files instead.
declare const BUILD_MANUAL: string | undefined;

const ARGS = defineArgs({});

export default defineCommand({
  meta: {
    name: "man",
    description: "show the manual page",
    examples: [
      ["man", "as man(1) shows it; without man(1), as text"],
      ["man > exclusive.1", "the page itself, to install"],
    ],
    notes: ["Exit status: 0"],
  },
  args: ARGS,
  run: ({ rawArgs }) => man(rawArgs),
});

/** On a terminal man(1) shows the page; into a file or a pipe it goes as it is, for man(1) to read. */
async function man(rawArgs: string[]): Promise<number> {
  const { rest } = parseOptions(rawArgs, ARGS);
  if (rest.length > 0) throw new UsageError("man takes no operand: there is one page for all commands");
  const page = typeof BUILD_MANUAL === "undefined" ? await packagedPage() : BUILD_MANUAL;
  if (!isTerminal(1)) write(page);
  else if (!showWithMan(page)) write(plainText(page, windowSize(1).columns));
  return EXIT.OK;
}

function packagedPage(): Promise<string> {
  const home = Bun.resolveSync("exclusiveprocess/package.json", import.meta.dir);
  return Bun.file(home.replace(/package\.json$/, "docs/exclusive.1")).text();
}
