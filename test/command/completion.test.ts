/** Completion in real shells, as TAB triggers it. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { command, exclusive, type Process, start } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

/** A shell with the binary in PATH, a held lock, and a directory with one file and one folder. */
class Shell extends TempDir {
  readonly locks = new TempDir();
  #holder: Process | undefined;

  static async withLock(name: string, label = "nightly"): Promise<Shell> {
    const shell = new Shell();
    mkdirSync(shell.file("bin"));
    symlinkSync(binary, shell.file("bin/exclusive"));
    mkdirSync(shell.file("here"));
    mkdirSync(shell.file("here/folder"));
    writeFileSync(shell.file("here/file"), "");
    const args = ["run", "--label", label, name, "--", "sh", "-c", "echo begun; exec sleep 60"];
    shell.#holder = start(args, { dir: shell.locks });
    await shell.#holder.says("begun");
    return shell;
  }
  async run(argv: string[]): Promise<string[]> {
    const { stdout, stderr } = await command(argv, {
      dir: this.locks,
      cwd: this.file("here"),
      env: { PATH: `${this.file("bin")}:${process.env.PATH}`, HOME: this.path, TERM: "dumb" },
    });
    expect(stderr).toBe("");
    return stdout.split("\n").filter((line) => line !== "");
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#holder?.[Symbol.asyncDispose]();
    this.locks[Symbol.dispose]();
    this[Symbol.dispose]();
  }
}

/** The line before TAB, and candidates that the shell must offer. */
const LINES: Record<string, string[]> = {
  "exclusive ": ["run", "status", "completion"],
  "exclusive sta": ["status"],
  "exclusive status ": ["backup"],
  "exclusive status ba": ["backup"],
  "exclusive run --wait ba": ["backup"],
  "exclusive run --lab": ["--label"],
  "exclusive run --if-held ": ["coalesce", "fail", "latest", "replace", "skip"],
  "exclusive run --if-held s": ["skip"],
  "exclusive run --label 'in two words' ba": ["backup"],
  "exclusive completion ": ["bash", "fish", "zsh"],
};

describe.if(required("bash", "bash") && required("python3", "python3"))("bash", () => {
  /** Calls the completion function as bash does. */
  const complete = (shell: Shell, line: string) =>
    shell.run([
      "bash",
      "--norc",
      "-c",
      `eval "$(exclusive completion bash)"
       # Broken into words as readline does it, at the characters that COMP_WORDBREAKS begins with.
       mapfile -t COMP_WORDS < <(python3 - "$1" "><=;|&(:" <<'E'
import re, sys
line, breaks = sys.argv[1:]
token = "'[^']*'?|\\"[^\\"]*\\"?"
words = re.findall(f"(?:{token}|[^\\\\s{re.escape(breaks)}'\\"])+|[{re.escape(breaks)}]+", line)
print("\\n".join(words + ([""] if line[-1].isspace() else [])))
E
)
       COMP_LINE=$1 COMP_POINT=\${#1} COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
       _exclusive exclusive "\${COMP_WORDS[COMP_CWORD]}"
       printf '%s\\n' "\${COMPREPLY[@]}"`,
      "bash",
      line,
    ]);

  test("offers commands, options, values and names", async () => {
    await using shell = await Shell.withLock("backup");
    for (const [line, offered] of Object.entries(LINES))
      expect({ line, offered: await complete(shell, line) }).toEqual({
        line,
        offered: expect.arrayContaining(offered),
      });
    expect(await complete(shell, "exclusive status x")).toEqual([]);
  });

  test("a name with colons and blanks, and a value after =", async () => {
    await using shell = await Shell.withLock("a:b c");
    expect(await complete(shell, "exclusive status a:")).toEqual(["b\\ c"]);
    expect(await complete(shell, "exclusive run --if-held=s")).toEqual(["skip"]);
  });

  test("no part of the line is executed", async () => {
    await using shell = await Shell.withLock("backup");
    await complete(shell, "exclusive run --label $(touch\tpwned) ba");
    expect(await shell.run(["ls"])).toEqual(["file", "folder"]);
  });

  test("after the name, commands", async () => {
    await using shell = await Shell.withLock("backup");
    expect(await complete(shell, "exclusive run backup -- ech")).toContain("echo");
    expect(await complete(shell, "exclusive run backup ech")).toContain("echo");
  });
});

describe.if(required("fish", "fish"))("fish", () => {
  const complete = async (shell: Shell, line: string) => {
    const script = `exclusive completion fish | source; complete -C ${Bun.$.escape(line)}`;
    return (await shell.run(["fish", "--no-config", "-c", script])).map((offer) => offer.split("\t")[0]);
  };

  test("offers commands, options, values and names", async () => {
    await using shell = await Shell.withLock("backup");
    for (const [line, offered] of Object.entries(LINES))
      expect({ line, offered: await complete(shell, line) }).toEqual({
        line,
        offered: expect.arrayContaining(offered),
      });
    expect(await complete(shell, "exclusive run --if-held=s")).toContain("--if-held=skip");
    expect(await complete(shell, "exclusive status x")).toEqual([]);
  });

  test("after the name, commands", async () => {
    await using shell = await Shell.withLock("backup");
    expect(await complete(shell, "exclusive run backup -- ech")).toContain("echo");
  });

  test("files and directories", async () => {
    await using shell = await Shell.withLock("backup");
    expect(await complete(shell, "exclusive run --dir f")).toEqual(["folder/"]);
    expect(await complete(shell, "exclusive run --file f")).toEqual(["file", "folder/"]);
  });
});

describe.if(required("zsh", "zsh"))("zsh", () => {
  /** Presses TAB in a zsh within a zsh, as the tests of zsh do. */
  const complete = async (shell: Shell, line: string) => {
    const inner = `
      PROMPT= RPROMPT=; stty -echo 2>/dev/null
      autoload -Uz compinit && compinit -u -d ${shell.file("zcompdump")}
      eval "$(exclusive completion zsh)"
      zstyle ':completion:*' list-separator '\t'
      # Instead of showing them: each candidate as compadd gets it, on a line.
      compadd() {
        if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
        local -a found; builtin compadd -O found "$@"
        print -rl -- \${found/#/OFFER } >>${shell.file("offers")}
        builtin compadd "$@"
      }
      bindkey '^I' complete-word
      print READY >>${shell.file("ready")}`;
    writeFileSync(shell.file(".zshrc"), inner);
    await shell.run([
      "zsh",
      "-fc",
      `zmodload zsh/zpty
       : >${shell.file("offers")}; rm -f ${shell.file("ready")}
       zpty -b inner "ZDOTDIR=${shell.path} zsh -i"
       until [[ -s ${shell.file("ready")} ]]; do sleep 0.01; done
       zpty -w -n inner ${Bun.$.escape(line)}$'\\t'
       # The line is done with when the next one is: a command behind it says so.
       zpty -w -n inner $'\\C-a\\C-k'": >${shell.file("done")}"$'\\n'
       until [[ -e ${shell.file("done")} ]]; do zpty -r -t inner >/dev/null; sleep 0.01; done
       rm ${shell.file("done")}; zpty -d inner`,
    ]);
    const offers = await Bun.file(shell.file("offers")).text();
    return offers.split("\n").flatMap((offer) => /^OFFER (.*)$/.exec(offer)?.[1] ?? []);
  };

  test("offers commands, options, values and names", async () => {
    await using shell = await Shell.withLock("backup");
    for (const [line, offered] of Object.entries(LINES))
      expect({ line, offered: await complete(shell, line) }).toEqual({
        line,
        offered: expect.arrayContaining(offered),
      });
  });

  test("after the name, commands; directories for --dir", async () => {
    await using shell = await Shell.withLock("backup");
    expect(await complete(shell, "exclusive run backup -- ech")).toContain("echo");
    expect(await complete(shell, "exclusive run --dir f")).toContain("folder");
  });
});

test("a name that could harm a terminal is not offered", async () => {
  using dir = new TempDir();
  await using holder = start(["run", "a\x1b[31m", "--", "sh", "-c", "echo begun; exec sleep 60"], { dir });
  await holder.says("begun");
  const { stdout } = await exclusive(["completion", "--answer", "status", ""], { dir });
  expect(stdout).toBe("");
});

test("another shell is a usage error", async () => {
  const { status, stdout, stderr } = await exclusive(["completion", "bsh"]);
  expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
  expect(stderr).toContain("did you mean bash?");
});
