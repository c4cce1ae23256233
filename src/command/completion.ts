/** `exclusive completion`: a script for a shell. */
import { defineCommand } from "citty";
import { defineArgs } from "./cli/define.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { parseOptions } from "./cli/options.ts";
import { suggestion } from "./cli/suggest.ts";
import bash from "./completions/exclusive.bash" with { type: "text" };
import fish from "./completions/exclusive.fish" with { type: "text" };
import zsh from "./completions/exclusive.zsh" with { type: "text" };
import { print } from "./output/print.ts";

const SCRIPTS = { bash, zsh, fish };

const ARGS = defineArgs({
  shell: { type: "positional", valueHint: "bash|zsh|fish", description: "the shell to complete in" },
});

export default defineCommand({
  meta: {
    name: "completion",
    description: "print a completion script for a shell",
    examples: [
      ["completion bash > /etc/bash_completion.d/exclusive", ""],
      ["completion zsh > ~/.zfunc/_exclusive", ""],
      ["completion fish > ~/.config/fish/completions/exclusive.fish", ""],
    ],
    notes: ["Exit status: 0"],
  },
  args: ARGS,
  run: ({ rawArgs }) => completion(rawArgs),
});

function completion(rawArgs: string[]): number {
  const [shell = "", ...more] = parseOptions(rawArgs, ARGS).rest;
  if (more.length > 0 || !Object.hasOwn(SCRIPTS, shell))
    throw new UsageError(`completion takes bash, zsh or fish${suggestion(shell, Object.keys(SCRIPTS))}`);
  print(SCRIPTS[shell as keyof typeof SCRIPTS].trim());
  return EXIT.OK;
}
