/**
 * `exclusive flock` must do what `flock` of util-linux does: both run one table of command lines, and their output and
 * the files they leave are compared. Options that an older `flock` lacks, and intended differences (docs/flock.md), are
 * tested on their own.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { command } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

const system = Bun.which("flock")!;
const box = new TempDir();
afterAll(() => box[Symbol.dispose]());
for (const [dir, target] of [
  ["ours", binary],
  ["theirs", system],
] as const) {
  mkdirSync(box.file(dir));
  if (target) symlinkSync(target, box.file(`${dir}/flock`));
}
const available = required("flock", "util-linux");

/** Each kind of command line, in each state of the file. */
function product(): string[] {
  const lines: string[] = [];
  const files = ["free", "new", "../held", "../shared", "../directory", ".", "readonly", "missing/new"];
  for (const mode of ["", "-s", "-x", "-u"]) {
    for (const wait of ["-n", "-w 0.01 -E 9"]) {
      for (const file of files) lines.push(`flock ${mode} ${wait} ${file} echo ran`);
      for (const redirection of ["9<free", "9>>free", "9<>new", "9<../held", "9<../shared", "9<../directory"])
        lines.push(`flock ${mode} ${wait} 9 ${redirection}`);
    }
  }
  return lines;
}

const TABLE = String.raw`
flock
flock -?
flock -z
flock -nz free true
flock -?n free true
flock --
flock -n
flock -n --
flock --unknown
flock --unknown=1 free true
flock --n free true
flock --no free true
flock --nonb free true
flock --nb free true
flock --nonblock free true
flock --nonblocking free true
flock --v
flock --ver
flock --verb -n free true
flock --c free true
flock --c=5 free true
flock --cl free true
flock --con 3 -n ../held true
flock --con=4 -n ../held true
flock --conflict-exit-code=5 -n ../held true
flock --e free echo ran
flock --sh free echo ran
flock --u free echo ran
flock --w 3 free echo ran
flock --wait=3 free echo ran
flock --t=1 free echo ran
flock --t 1 free echo ran
flock --timeout
flock --timeout=
flock --tim
flock -w
flock -E
flock -nE
flock --conflict-exit-code
flock --shared=3 free true
flock --exclusive= free true
flock --help=3
flock --close=1 free true
flock -sn free echo ran
flock -sxn free echo ran
flock -xsn ../shared echo ran
flock -sxn ../shared echo ran
flock -nE7 ../held true
flock -nE 7 ../held true
flock -n -E7 ../held true
flock -E7 -n ../held true
flock -nEx ../held true
flock -w.01 ../held true
flock -w .01 -s ../held true
flock -oE5 -w.01 ../held true
flock -n -- free echo ran
flock -n -- ../held echo ran
flock -- -n true
flock - echo ran
flock -- -- echo ran
flock free -- echo ran
flock free -n echo ran
flock free echo -n -s --help
flock free echo -- -w abc
POSIXLY_CORRECT=1 flock free echo -n
flock free --help
flock free -V
flock -w abc free true
flock -w '' free true
flock -w ' 1' free echo ran
flock -w '1 ' free true
flock -w +1 free echo ran
flock -w 1s free true
flock -w 1,5 free true
flock -w 1.5.5 free true
flock -w . free true
flock -w .5 free echo ran
flock -w 5. free echo ran
flock -w 1e0 free echo ran
flock -w 1e free true
flock -w 0x1 free echo ran
flock -w 0x.8 free echo ran
flock -w 0x.8p1 free echo ran
flock -w 0x free true
flock -w 0xg free true
flock -w 1e400 free true
flock -w 1e20 free true
flock -w 1e5000 free true
flock -w 1e-5000 free true
flock -w 0e9999 free echo ran
flock -w -1 free true
flock -w -0 ../held true
flock -w 0 ../held true
flock -w 0 free echo ran
flock -w 0.0000001 ../held true
flock -w nan free true
flock -w 'nan(1)' free true
flock -w inf free true
flock -w -infinity free true
flock -w 1000000000 free echo ran
flock -w abc -E 300 free true
flock -E 300 -w abc free true
flock -w 1 -w abc free true
flock -w .01 -w 0 ../held true
flock -E 0 -n ../held true
flock -E 255 -n ../held true
flock -E 256 -n ../held true
flock -E -1 -n ../held true
flock -E 1.5 -n ../held true
flock -E ' 5' -n ../held true
flock -E '5 ' -n ../held true
flock -E +5 -n ../held true
flock -E 010 -n ../held true
flock -E 0x5 -n ../held true
flock -E 5x free true
flock -E '' free true
flock -E 2147483647 free true
flock -E 2147483648 free true
flock -E 99999999999999999999999 free true
flock -E -99999999999 free true
flock -n -E 5 -E 6 ../held true
flock 9
flock -n 9 9<free
flock -n 9 9<&-
flock 09 9<free
flock ' 9' 9<free
flock '9 '
flock +9 9<free
flock 0x9 9<free
flock 9x
flock free
flock ''
flock 99999999999
flock -- -1
flock 3
flock 4
flock 5
flock 6
flock 10
flock 12
flock 63
flock 1024
flock 99999
flock -n 0 <free
flock -n 0 <&-
flock -n 1
flock -n 2 2>>free
flock 0 <free
flock -sn 9 9</dev/null
flock -n 8 8<../held
flock -n 8 8<../shared
flock -s -n 8 8<../shared
flock -u 8 8<../held
flock -o -n 9 9<free
flock -F -n 9 9<free
flock -oF 9 9<free
flock --verbose -n 77
flock --verbose 9x
(flock -n 9 && flock -n ../held true; echo $?) 9>new
(flock -s -n 9 && flock -s -n new echo ran; flock -n new true; echo $?) 9>new
(flock 9; flock -n new true; echo $?; flock -u 9; flock -n new echo ran) 9>new
(flock 9; flock -s 9; flock -s -n new echo ran; flock -n new true) 9>new
flock free -c
flock free --command
flock free -c 'echo ran' extra
flock free --command 'echo ran' extra
flock free -c 'exit 3'
flock free --command 'exit 3'
flock free --comm 'exit 3'
flock free -c ''
flock free -c 'echo "$0" "$#"'
flock -c free 'echo ran'
flock free -cecho
SHELL= flock free -c 'echo $0'
SHELL=/nonexistent flock free -c true
SHELL=/bin/bash flock free -c 'echo $BASH'
SHELL=/bin/echo flock free -c 'a b'
SHELL=echo flock free -c 'a b'
unset SHELL; flock free -c 'echo $0'
flock -F free -c 'echo $0'
flock -oF free true
flock -F -o free true
flock --no-fork --close free -c
flock free sh -c 'exit 0'
flock free sh -c 'exit 1'
flock free sh -c 'exit 127'
flock free sh -c 'exit 255'
flock -F free sh -c 'exit 7'
flock -o free sh -c 'exit 7'
flock free nonexistent-command
flock -F free nonexistent-command
flock free ./nonexistent
flock free .
flock free ./readonly
flock -F free ./readonly
flock free ''
flock 1 ''
PATH=/nonexistent $(command -v flock) free sh -c true
flock free ./script
flock -F free ./script
flock free ./garbage
chmod +x new 2>/dev/null; printf 'echo run by $0 with $1\n' >plain; chmod +x plain; flock free ./plain 'a b'
printf 'echo found\n' >plain; chmod +x plain; PATH=$PWD:$PATH flock free plain
printf 'echo found\n' >plain; chmod +x plain; PATH=$PWD:$PATH flock -F free plain
flock free sh -c 'kill -HUP $$'
flock free sh -c 'kill -INT $$'
flock free sh -c 'kill -QUIT $$'
flock free sh -c 'kill -ABRT $$'
flock free sh -c 'kill -KILL $$'
flock free sh -c 'kill -SEGV $$'
flock free sh -c 'kill -PIPE $$'
flock free sh -c 'kill -ALRM $$'
flock free sh -c 'kill -TERM $$'
flock free sh -c 'kill -USR1 $$'
flock free sh -c 'kill -42 $$'
flock -w 5 free sh -c 'kill -ALRM $$'
flock -o free sh -c 'kill -KILL $$'
flock -F free true
flock '' true
flock free/ true
flock readonly/x true
flock loop true
flock dangling true
flock link true
flock ${"n".repeat(255)} true
flock ${"n".repeat(256)} true
flock ${"n/".repeat(2100)} true
flock $'bytes\xff' echo $'\xfe'
flock $'missing\xff/x' true
flock -$'\xc3\xa9' free true
flock --$'\xc3\xa9' free true
flock free nonexistent-$'\xff'
flock -w $'\xff' free true
flock 'with space' true
flock $'new\nline/x' true
flock -sn /dev/null true
flock -sn /dev/full true
flock /proc/nonexistent true
flock /proc/self/mem true
mkfifo pipe; (: >pipe) & flock pipe echo ran
(umask 0; flock new true)
(umask 077; flock new true)
flock --verbose -n ../held true
flock --verbose -w 0.01 ../held true
flock --verbose -w 0 ../held true
flock --verbose -n -E 5 9 9<../held
flock --verbose 9 9<free
flock --verbose free true
flock --verbose free -c true
flock --verbose free nonexistent-command
flock --verbose -u free true
flock --verbose missing/x true
flock --help >/dev/full
flock --help >&-
flock --verbose free true >/dev/full
flock --verbose free true >&-
flock --verbose -n 9 9<free >/dev/full
flock free echo ran >&-
flock free true 2>&-
flock -n ../held true 2>&-
flock -z 2>/dev/full
flock free cat <&-
flock free cat </dev/null
echo in | flock free cat
flock free sh -c 'echo out; echo err >&2'
flock free flock -n free true
flock free flock -n new echo ran
flock -s free flock -sn free echo ran
flock free flock -n 3
flock free sh -c 'flock -u 3; flock -n free echo ran'
flock free sh -c 'exec 3>&-; flock -n free true'
flock -F free sh -c 'flock -n free true'
flock -o free sh -c 'flock -n free true'
flock free sh -c 'ls -l /proc/self/fd | sed -n "s/.* 3 -> .*free/3/p"'
flock -o free sh -c 'readlink /proc/self/fd/3 | sed s,/.*,,'
flock free sh -c 'readlink /proc/self/fd/5 | sed s,.*/,,' 3<new2 4<new2
flock free sh -c 'readlink /proc/self/fd/0 | sed s,.*/,,' <&-
flock free sh -c 'readlink /proc/$$/fd/7 | sed s,.*/,,' 7<link
flock -F free sh -c 'readlink /proc/$$/fd/7 | sed s,.*/,,' 7<link
flock free sh -c 'ulimit -n'
flock free sh -c 'ulimit -a'
flock -F free sh -c 'ulimit -a'
flock free sh -c 'grep -E "^Sig(Blk|Ign)" /proc/self/status'
flock -F free sh -c 'grep -E "^Sig(Blk|Ign|Cgt)" /proc/self/status'
flock -w 5 free sh -c 'grep -E "^Sig(Blk|Ign)" /proc/self/status'
(trap '' TERM; flock free sh -c 'grep -E "^Sig(Blk|Ign)" /proc/self/status')
(trap '' ALRM; flock -w 5 -n ../held true)
flock free sh -c 'env | grep -v -e ^_= -e ^BASH_FUNC -e "^}" -e ^PATH= -e ^PWD='
../$BIN/flock --unknown
$PWD/../$BIN/flock --n free true
$PWD/../$BIN/flock missing/x true
$PWD/../$BIN/flock
ln -s ../$BIN/flock .; ./flock -z
`
  .trim()
  .split("\n");

const CASES = [...product(), ...TABLE];

interface Outcome {
  status: string;
  stdout: string;
  stderr: string;
  /** Name, kind, mode and size of each file in the directory afterwards. */
  files: string;
}

/** How many parts of the table run at once: many lines only wait. */
const PARTS = 4;

async function runTable(bin: string, lines = CASES, prelude = ""): Promise<Map<string, Outcome>> {
  const parts = Array.from({ length: PARTS }, (_, part) => lines.filter((_, i) => i % PARTS === part));
  const outcomes = await Promise.all(parts.map((part) => runPart(bin, part, prelude)));
  return new Map(outcomes.flatMap((part) => [...part]));
}

/** Runs each line in bash, in a new directory, with the `flock` of this directory. */
async function runPart(bin: string, lines: string[], prelude: string): Promise<Map<string, Outcome>> {
  using table = new TempDir();
  const dir = table.path;
  symlinkSync(box.file(bin), `${dir}/bin`);
  const script = String.raw`
cd ${dir}
export LC_ALL=C PATH=$PWD/bin:$PATH BIN=bin SHELL=/bin/sh
umask 022; ulimit -c 0
${prelude}
mkdir directory template; : >empty
cd template
echo content >free; echo content >readonly; chmod 444 readonly; : >new2
ln -s loop loop; ln -s target dangling; ln -s free link
printf '#!/bin/sh\necho script\n' >script; chmod +x script; printf '\177ELF' >garbage; chmod +x garbage
cd ..
exec 250>held 251>shared 252<directory
${system} -x 250; ${system} -s 251; ${system} -x 252
one() {
  cp -a template $1; cd $1
  ( exec 250>&- 251>&- 252>&-; eval "$2"; s=$?; wait; exit $s ) >../$1.out 2>../$1.err <../empty
  echo $? >../$1.status
  cd ..
}
${lines.map((line, i) => `one ${i} ${Bun.$.escape(line)}`).join("\n")}
find [0-9]* -printf '%p %y %m %s\n' | sort >files
`;
  writeFileSync(`${dir}/run`, script);
  expect(await command(["bash", `${dir}/run`])).toMatchObject({ status: 0, stderr: "" });
  const all = readFileSync(`${dir}/files`, "latin1").split("\n");
  const files = Object.groupBy(all, (file) => file.split(/[ /]/)[0]!);
  const outcomes = new Map<string, Outcome>();
  for (const [i, line] of lines.entries()) {
    const read = (what: string) =>
      readFileSync(`${dir}/${i}.${what}`, "latin1")
        .replaceAll(dir, "DIR")
        .replaceAll("exclusive flock", "flock")
        .replace(/took \d+\.\d{6} seconds/g, "took T seconds");
    outcomes.set(line, {
      status: read("status").trim(),
      stdout: read("out"),
      stderr: read("err"),
      files: files[i]!.map((file) => file.slice(String(i).length)).join("\n"),
    });
  }
  return outcomes;
}

/** Without SHELL, util-linux 2.42 runs the login shell; before, it ran /bin/sh. `flock.test.ts` has the new value. */
const SINCE_2_42 = ["SHELL= flock free -c 'echo $0'", "unset SHELL; flock free -c 'echo $0'"];

/** Is the flock(1) of this machine older than that? */
function isOlder(): boolean {
  const { stdout } = Bun.spawnSync(["flock", "--version"]);
  const [, major, minor] = /(\d+)\.(\d+)/.exec(stdout.toString()) ?? [];
  return Number(major) < 2 || (Number(major) === 2 && Number(minor) < 42);
}

describe.if(available)("the same as flock(1)", () => {
  const theirs = available ? runTable("theirs") : undefined;

  async function same(outcomes: Map<string, Outcome>): Promise<void> {
    const expected = await theirs!;
    const differing = [...outcomes.keys()].filter(
      (line) =>
        !Bun.deepEquals(outcomes.get(line), expected.get(line)) && !(isOlder() && SINCE_2_42.includes(line)),
    );
    const pick = (from: Map<string, Outcome>) => differing.map((line) => ({ line, ...from.get(line) }));
    expect(pick(outcomes)).toEqual(pick(expected));
  }

  test(`${CASES.length} command lines, called by its name`, async () => {
    expect(CASES.length).toBeGreaterThan(400);
    expect(CASES.filter((line, i) => CASES.indexOf(line) !== i)).toEqual([]); // each is a key of the outcomes
    await same(await runTable("ours"));
  }, 240_000);

  test("and as exclusive flock", async () => {
    const lines = TABLE.filter((line) => /^flock /.test(line) && !line.includes("flock free flock"));
    expect(lines.length).toBeGreaterThan(200);
    const prelude = `flock() { ${binary} flock "$@"; }; export -f flock`;
    await same(await runTable("ours", lines, prelude));
  }, 240_000);
});
