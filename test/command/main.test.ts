import { expect, test } from "bun:test";
import { version } from "../../package.json";
import { root } from "../support/paths.ts";
import { command, exclusive } from "../support/process.ts";

test("--version: the package's version and the commit of the build", async () => {
  const { stdout, status } = await exclusive(["--version"]);
  const git = await command(["git", "describe", "--always", "--abbrev=12", "--exclude=*"]);
  expect(status).toBe(0);
  const [, number, commit] = /^exclusive (\S+)(?: \((\S+)\))?\n$/.exec(stdout)!;
  expect(number).toBe(version);
  if (git.status === 0) expect(commit).toMatch(/^[0-9a-f]{7,40}(-dirty)?$/);
  expect((await exclusive(["-V"])).stdout).toBe(stdout);
});

test("as a script it prints its version too", async () => {
  const script = await command([process.execPath, `${root}/src/command/main.ts`, "--version"], { cwd: "/" });
  expect(script).toMatchObject({ status: 0, stdout: `exclusive ${version}\n` });
});

test.each([
  [["lst"], "unknown command 'lst' (did you mean list?)", "exclusive COMMAND"],
  [["--versoin"], "unknown option '--versoin' (did you mean --version?)", "exclusive COMMAND"],
  [["constructor"], "unknown command 'constructor'", "exclusive COMMAND"],
  [["\x1b[31m"], "unknown command '\\x1b[31m'", "exclusive COMMAND"],
  [[""], "missing COMMAND", "exclusive COMMAND"],
  [["help", "lst"], "unknown command 'lst' (did you mean list?)", "exclusive COMMAND"],
  [
    ["run", "--wiat", "job", "true"],
    "unknown option --wiat (did you mean --wait?)",
    "exclusive run [OPTION...] NAME",
  ],
  [["run"], "missing NAME", "exclusive run [OPTION...] NAME"],
  [["run", "job"], "missing COMMAND", "exclusive run [OPTION...] NAME"],
  [
    ["stop", "--grce", "1s", "job"],
    "unknown option --grce (did you mean --grace?)",
    "exclusive stop [OPTION...] NAME",
  ],
  [["list", "--json=yes"], "--json takes no value", "exclusive list [OPTION...]"],
  [["wait", "job", "--timeout"], "--timeout needs a value: DURATION", "exclusive wait [OPTION...] NAME"],
])("%j: what is wrong, how it is called, status 64", async (args, message, usage) => {
  const { status, stdout, stderr } = await exclusive(args);
  expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
  const [first, second] = stderr.split("\n");
  expect(first).toBe(`exclusive: ${message}`);
  expect(second).toStartWith(`Usage: ${usage}`);
});
