import { describe, expect, test } from "bun:test";
import { optionsOf } from "../../../src/command/cli/define.ts";
import { parseOptions } from "../../../src/command/cli/options.ts";
import { COMMANDS, loadCommand, loadCommands } from "../../../src/command/commands.ts";
import { binary } from "../../support/paths.ts";
import { command, exclusive } from "../../support/process.ts";
import { TempDir } from "../../support/temp-dir.ts";

const names = Object.keys(COMMANDS);

// The flock(1) front end has flock(1)'s help page.
describe.each(names.filter((name) => name !== "flock"))("%s --help", (name) => {
  const page = () => exclusive([name, "--help"]);

  test("one screen of 80 by 24, on stdout, with status 0", async () => {
    const { stdout, stderr, status } = await page();
    expect({ stderr, status }).toEqual({ stderr: "", status: 0 });
    const lines = stdout.trimEnd().split("\n");
    expect(lines.length).toBeLessThanOrEqual(24);
    expect(lines.filter((line) => line.length > 80)).toEqual([]);
  });

  test.if(process.platform === "linux")("on a full disk: one sentence, and 74", async () => {
    const full = await command(["sh", "-c", `"${binary}" ${name} --help >/dev/full`]);
    expect(full).toMatchObject({
      status: 74,
      stderr: "exclusive: cannot write to stdout: No space left on device\n",
    });
  });

  test("usage first, then what it does, then examples", async () => {
    const { stdout } = await page();
    const { meta } = (await loadCommand(name))!;
    expect(stdout).toStartWith(`Usage: exclusive ${name}`);
    const places = [meta.description.slice(1), `  exclusive ${meta.examples[0]![0]}`].map((text) =>
      stdout.indexOf(text),
    );
    expect(places).toEqual(places.toSorted((a, b) => a - b));
    expect(places[0]).toBeGreaterThan(0);
  });

  test("each option, with `help --all`; a page without the rare ones says so", async () => {
    const whole = await exclusive(["help", "--all", name]);
    const { stdout } = await page();
    const { args } = (await loadCommand(name))!;
    for (const [long, { alias }] of optionsOf(args)) {
      const shown = alias ? `-${alias}, --${long}` : `--${long}`;
      expect(whole.stdout).toContain(shown);
      if (!stdout.includes(shown)) expect(stdout).toContain(`exclusive help --all ${name}`);
    }
    expect(whole.stdout.split("\n").filter((line) => line.length > 80)).toEqual([]);
  });

  test("its examples have only options of its own", async () => {
    const { args: definition, meta } = (await loadCommand(name))!;
    for (const [line] of meta.examples) {
      const [command, ...args] = line.split(/ [|>] | && /)[0]!.split(" ");
      expect(command).toBe(name);
      parseOptions(args, definition);
    }
  });

  test("-h and `help` print the same", async () => {
    const { stdout } = await page();
    expect((await exclusive(["help", name])).stdout).toBe(stdout);
    expect((await exclusive([name, "-h"])).stdout).toBe(stdout);
  });
});

test("the program's own page names every command", async () => {
  const { stdout, status } = await exclusive(["--help"]);
  expect(status).toBe(0);
  for (const { meta } of await loadCommands())
    expect(stdout).toMatch(new RegExp(`^  ${meta.name} +${RegExp.escape(meta.description)}$`, "m"));
  expect(stdout.split("\n").length).toBeLessThanOrEqual(25);
  for (const args of [[], ["-h"], ["help"], ["help", "help"], ["help", "--help"]])
    expect(await exclusive(args)).toMatchObject({ stdout, stderr: "", status: 0 });
});

test("the page of run is in groups, with the exit statuses and the environment", async () => {
  const { stdout } = await exclusive(["run", "--help"]);
  for (const title of [
    "Waiting:",
    "What to lock:",
    "The command:",
    "Output:",
    "Exit status:",
    "Environment:",
  ])
    expect(stdout).toContain(`\n${title}`);
  for (const option of ["--wait", "--timeout", "--if-held", "--dir", "--store", "--quiet"])
    expect(stdout).toContain(option);
});

test("help flock prints the same as flock --help", async () => {
  const { stdout, status } = await exclusive(["help", "flock"]);
  expect(status).toBe(0);
  expect(stdout).toBe((await exclusive(["flock", "--help"])).stdout);
});

test("after NAME, --help belongs to the command", async () => {
  using dir = new TempDir();
  for (const dashes of [[], ["--"]]) {
    const shown = await exclusive(["run", "job", ...dashes, "sh", "-c", 'echo "$1"', "sh", "--help"], {
      dir,
    });
    expect(shown).toMatchObject({ status: 0, stdout: "--help\n" });
  }
});
