/** Every code block of the README and the guides is run. */
import { afterAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename } from "node:path";
import { writeSums } from "../build/tree.ts";
import { installPackage, packInto } from "./support/package.ts";
import { binary, root } from "./support/paths.ts";
import { command } from "./support/process.ts";
import { required } from "./support/required.ts";
import { TempDir } from "./support/temp-dir.ts";

interface Block {
  /** `docs/cron.md:7`. */
  place: string;
  language: string;
  text: string;
}

const files = [
  "README.md",
  "SECURITY.md",
  "bench/README.md",
  ...new Bun.Glob("docs/*.md").scanSync(root),
].filter((file) => Bun.file(`${root}/${file}`).size > 0);

function blocksOf(file: string): Block[] {
  const blocks: Block[] = [];
  let open: Block | undefined;
  const lines = readFileSync(`${root}/${file}`, "utf8").split("\n");
  for (const [i, line] of lines.entries()) {
    const fence = /^```(\w*)$/.exec(line);
    if (!fence) {
      if (open) open.text += `${line}\n`;
    } else if (open) {
      blocks.push(open);
      open = undefined;
    } else {
      open = { place: `${file}:${i + 1}`, language: fence[1]!, text: "" };
    }
  }
  return blocks;
}

/** Where blocks run: the binary in PATH, a lock directory, and the scripts that the texts mention. */
class Sandbox extends TempDir {
  constructor() {
    super();
    for (const dir of ["locks", "bin", "data"]) mkdirSync(this.file(dir));
    symlinkSync(binary, this.file("bin/exclusive"));
    symlinkSync(process.execPath, this.file("bin/bun"));
    installPackage(this);
    for (const name of "backup deploy migrate preview reindex report search server sync test train worker convert".split(
      " ",
    )) {
      writeFileSync(this.file(`${name}.sh`), `#!/bin/sh\necho ${name} done\n`);
      chmodSync(this.file(`${name}.sh`), 0o755);
    }
    writeFileSync(this.file("job"), "#!/bin/sh\n");
    chmodSync(this.file("job"), 0o755);
  }

  /** Both ways from a download to a first lock. */
  async receive(packageToo: boolean): Promise<void> {
    copyFileSync(binary, this.file("exclusive-linux-x64"));
    chmodSync(this.file("exclusive-linux-x64"), 0o644);
    await writeSums(this.path);
    if (!packageToo) return;
    renameSync(await packInto(this), this.file("exclusiveprocess.tgz"));
  }

  /** A shell script in which the paths of the texts are replaced by those of the sandbox. */
  run(script: string) {
    const here = script
      .replaceAll("/opt/app", this.path)
      .replaceAll("/usr/local/bin/exclusive", "exclusive")
      .replaceAll("bun add exclusiveprocess", "bun add --silent ./exclusiveprocess.tgz");
    return command(["bash", "-uc", here], {
      cwd: this.path,
      env: {
        PATH: `${this.file("bin")}:${process.env.PATH}`,
        EXCLUSIVE_DIR: this.file("locks"),
      },
    });
  }
}

const box = new Sandbox();
afterAll(() => box[Symbol.dispose]());

async function succeeds(script: string): Promise<void> {
  const { status, stderr } = await box.run(`set -e\n${script}`);
  expect(stderr).toBe("");
  expect(status).toBe(0);
}

/** Replaces what differs from run to run: pids, times, the lock directory. */
const settled = (text: string) =>
  text
    .replaceAll(box.file("locks"), "/var/lock")
    .replace(/\bpid \d+/g, "pid N")
    .replace(/\bfor \d+[smhd]( \d+[smhd])?/g, "for T")
    .replace(/ {2,}/g, "  ") // columns are as wide as their widest cell
    .replace(/\bheld {2}\d+ {2}\w+ {2}\d+[smhd]( \d+[smhd])?/g, "held  N  USER  T")
    .trim();

/** A session: each `$ ` line is typed, and must print the lines below it. */
async function session(text: string): Promise<void> {
  let script = "exec 2>&1\n";
  for (const [, typed] of text.matchAll(/^\$ (.*)$/gm)) {
    script += `printf '%s\\n' ${Bun.$.escape(`$ ${typed!}`)}\n`;
    // A reader types the next line when this command has the lock.
    script += typed!.endsWith("&")
      ? `${typed}\nuntil [ -s locks/*.lock ]; do sleep 0.01; done\n`
      : `status() { return $status; }\nstatus\n${typed}\nstatus=$?\n`;
  }
  const { stdout } = await box.run(`status=0\n${script}\nkill %% 2>/dev/null || true; wait`);
  expect(settled(stdout)).toBe(settled(text));
}

/** The commands of a unit file, a crontab or a workflow. */
const COMMANDS: Record<string, RegExp> = {
  crontab: /^(?:[\d*][^\s#]* +[^\s]+ +[^\s]+ +[^\s]+ +[^\s]+|@\w+) +(.+)$/gm,
  ini: /^ExecStart=(.+)$/gm,
  yaml: /^ *-? *run: (.+)$/gm,
};

/** From the download to the first lock: at most three commands and a minute. */
async function firstLock({ place, text }: Block): Promise<void> {
  using stranger = new Sandbox();
  await stranger.receive(text.includes("bun add"));
  const begun = performance.now();
  const { status, stderr } = await stranger.run(`rm -rf node_modules\nset -e\n${text}`);
  const seconds = (performance.now() - begun) / 1000;
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  console.log(`${place}: ${text.trim().split("\n").length} commands, ${seconds.toFixed(1)} s`);
  expect(text.trim().split("\n").length).toBeLessThanOrEqual(3);
  expect(seconds).toBeLessThan(60);
}

/** The page of the bench: one section in its short form, which writes nothing. */
async function benchRuns(): Promise<void> {
  if (!required("gcc", "gcc")) return;
  const { status, stdout, stderr } = await command([process.execPath, "run", "bench", "--quick", "wrap"]);
  expect({ status, stderr: status === 0 ? "" : stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout).toMatch(/floor.* ms .*\n.*exclusive run/);
}

const RUNNERS: Record<string, (block: Block) => Promise<void>> = {
  sh: (block) => {
    if (/exclusive-linux|bun add/.test(block.text)) return firstLock(block);
    return block.text.startsWith("bun run bench") ? benchRuns() : succeeds(block.text);
  },
  console: ({ text }) => session(text),
  ts: (block) => succeeds(`bun ${scriptOf(block)} >/dev/null`),
};

/** The file of a block in TypeScript. */
function scriptOf({ place, text }: Block): string {
  const file = box.file(`${place.replaceAll(/\W/g, "-")}.ts`);
  writeFileSync(file, text);
  return file;
}

test("every script type-checks under the strict options of a user", async () => {
  const scripts = files.flatMap(blocksOf).filter(({ language }) => language === "ts");
  expect(scripts.length).toBeGreaterThan(0);
  const config = box.file("tsconfig.json");
  const compilerOptions = {
    paths: { exclusiveprocess: [`${root}/src/index.ts`] },
    noUnusedLocals: false,
    typeRoots: [`${root}/node_modules`],
    types: ["bun-types"],
  };
  const project = {
    extends: `${root}/tsconfig.json`,
    compilerOptions,
    include: [],
    files: scripts.map(scriptOf),
  };
  writeFileSync(config, JSON.stringify(project));
  const { stdout, status } = await command([`${root}/node_modules/.bin/tsc`, "--project", config]);
  expect({ stdout, status }).toEqual({ stdout: "", status: 0 });
}, 120_000);

for (const file of files) {
  describe(file, () => {
    for (const block of blocksOf(file)) {
      const { place, language, text } = block;
      if (language === "text") continue; // not a language to run
      test(`${place} (${language})`, async () => {
        if (text.startsWith("npm install &&")) {
          // For a fresh checkout: .ci/run does it.
          const ci = readFileSync(`${root}/.ci/run`, "utf8");
          expect(ci).toContain(text.trim());
          return;
        }
        const pattern = COMMANDS[language];
        if (pattern === undefined) {
          expect(Object.keys(RUNNERS)).toContain(language);
          return RUNNERS[language]!(block);
        }
        for (const [, line] of text.matchAll(pattern)) await succeeds(line!);
      });
    }
  });
}

/** A unit file of this text, with the other unit that it needs. */
function unitFile(box: TempDir, { place, text }: Block): string {
  const base = place.replaceAll(/\W/g, "-");
  const here = text.replaceAll("/opt/app", box.path).replaceAll("/usr/local/bin/exclusive", binary);
  const isTimer = text.includes("[Timer]");
  if (isTimer) writeFileSync(box.file(`${base}.service`), "[Service]\nExecStart=/bin/true\n");
  writeFileSync(box.file(`${base}.${isTimer ? "timer" : "service"}`), here);
  return box.file(`${base}.${isTimer ? "timer" : "service"}`);
}

test.if(required("systemd-analyze", "systemd"))("systemd finds nothing wrong with the units", async () => {
  const units = files.flatMap(blocksOf).filter(({ language }) => language === "ini");
  expect(units.length).toBeGreaterThan(3);
  for (const unit of units) {
    const file = unitFile(box, unit);
    const { status, stderr } = await command(["systemd-analyze", "verify", "--man=no", file]);
    const ours = stderr.split("\n").filter((line) => line.includes(basename(file)));
    expect({ file, status, ours }).toEqual({ file, status: 0, ours: [] });
  }
});

test("every page of docs/ is in its table of contents", () => {
  const contents = readFileSync(`${root}/docs/README.md`, "utf8");
  for (const file of new Bun.Glob("docs/*.md").scanSync(root)) {
    if (basename(file) !== "README.md") expect(contents).toContain(`(${basename(file)})`);
  }
});
