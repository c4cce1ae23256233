/** The wrapper is transparent: a wrapped command finds what a bare one finds. */
import { describe, expect, test } from "bun:test";
import { readFileSync, rmSync } from "node:fs";
import { binary } from "../support/paths.ts";
import { command } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";

/**
 * Prints what a process is given: signals, limits, identity, scheduling, descriptors, arguments, environment. Written
 * in sh, which changes nothing of that at its start. Leaves out the descriptor and the variables of the lock.
 */
const PROBE = `
for f in /proc/$$/fd/*; do
  case $(readlink "$f") in *exclusive_*) ;; *) echo "fd \${f##*/} $(readlink "$f" | sed 's/[[].*//')" ;; esac
done >"$PROBE_OUT"
{
  grep -E '^(Umask|State|Uid|Gid|Groups|Sig[PBIC]|Shd|Cap|NoNewPrivs|Seccomp|Cpus_allowed|THP_enabled)' /proc/self/status
  cat /proc/self/limits /proc/self/oom_score_adj /proc/self/timerslack_ns /proc/self/personality
  readlink /proc/$$/cwd
  cut -d' ' -f5-8,18,19,41 /proc/$$/stat
  od -An -c -v /proc/$$/cmdline
  tr '\\0' '\\n' </proc/$$/environ | grep -av '^EXCLUSIVE_[NL]' | od -An -c -v
} >>"$PROBE_OUT" 2>&1
`;

/** A prefix for the command: it sets up the environment in which the bare and the wrapped command start. */
const shell = (prelude: string) => ["bash", "-c", `${prelude}; exec "$@"`, "bash"];
const SURROUNDINGS: Record<string, string[]> = {
  "nothing special": [],
  "a parent that ignores SIGPIPE": shell("trap '' PIPE"),
  "a parent that ignores SIGXFSZ and SIGHUP": shell("trap '' XFSZ HUP"),
  "a parent that ignores SIGCHLD": shell("trap '' CHLD"),
  "a parent that ignores most signals": shell(
    "trap '' INT QUIT TERM USR1 USR2 TSTP TTIN TTOU CONT WINCH URG",
  ),
  "blocked signals": ["env", "--block-signal=USR1,CHLD,TERM,URG"],
  nohup: ["nohup"],
  "a session of its own": ["setsid", "--wait"],
  "a higher nice value": ["nice", "-n", "5"],
  "one processor": ["taskset", "1"],
  "no new privileges": ["setpriv", "--no-new-privs"],
  "a umask": shell("umask 0137"),
  "few open files": shell("ulimit -n 40"),
  "a soft limit of open files": shell("ulimit -Sn 200"),
  "limits of core and file size": shell("ulimit -c 0; ulimit -f 100; ulimit -St 100"),
  "inherited descriptors": shell("exec 3</etc/passwd 4>/dev/null 7<>/dev/zero 30<. 200</dev/null"),
  "a descriptor where the lock would go": shell("exec 1023</dev/null 1022</dev/zero"),
  "closed stdin": shell("exec 0<&-"),
  "closed stdout": shell("exec 1>&-"),
  "closed stderr": shell("exec 2>&-"),
  "all three closed": shell("exec 0<&- 1>&- 2>&-"),
  "no environment": shell('exec env -i PROBE_OUT="$PROBE_OUT" "$@"'),
  "arguments that are no UTF-8": ["bash", "-c", `exec "$@" $'a\\xffb' '' $'\\n' '\ufffd'`, "bash"],
  "an environment that is no UTF-8": shell(
    "export BAD=$'a\\xff\\xfe' EMPTY= LINES_=$'a\\nb' BUN_X=1 NODE_OPTIONS=--x",
  ),
};

/** What the command finds in this environment under this wrapper. */
async function probe(file: string, prefix: string[], wrapper: string[]): Promise<string> {
  rmSync(file, { force: true });
  const env = { PROBE_OUT: file };
  const result = await command([...prefix, ...wrapper, "sh", "-c", PROBE, "sh"], { env });
  expect(result).toMatchObject({ status: 0, signal: null });
  // The leader of a new session has its own pid for process group and session: another number each time.
  return readFileSync(file, "utf8").replace(/^(\d+) \1 (?=0 -1 )/m, "a leader ");
}

const here = process.platform === "linux" && required("setpriv", "util-linux") && required("bash", "bash");

describe.if(here)("wrapped as bare", () => {
  for (const [what, prefix] of Object.entries(SURROUNDINGS)) {
    test.concurrent(what, async () => {
      using dir = new TempDir();
      const file = dir.file("found");
      const bare = await probe(file, prefix, []);
      expect(bare).toContain("Max open files");
      for (const mode of [[], ["--exec"]])
        expect(await probe(file, prefix, [binary, "run", "--dir", dir.path, ...mode, "t", "--"])).toBe(bare);
    });
  }
});
