/** Job control in an interactive shell: every line does the same with the wrapper as without it. */
import { describe, expect, test } from "bun:test";
import { binary } from "../support/paths.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { KEY, TerminalProcess } from "../support/terminal.ts";
import { until } from "../support/until.ts";

const here = process.platform === "linux" && required("bash", "bash");

/** Prints a word again and again, which the shell does not print with the command. */
const BUSY = "bash -c 'while :; do printf run%s ning; sleep 0.05; done'";
/** As a single process: a shell ignores SIGQUIT. */
const ONCE = "sh -c 'printf run%s ning; exec sleep 30'";
const { CTRL_C, CTRL_BACKSLASH, CTRL_Z, CTRL_D } = KEY;
const RUNS = /running/;
const STATUS = "echo rc=$?.";
// biome-ignore lint/suspicious/noTemplateCurlyInString: the shell expands it
const STATUSES = 'echo "rc=${PIPESTATUS[*]}."';
/** A job that the shell has not reaped yet can be waited for; one that it still believes stopped cannot. */
const GONE = 'until [ -z "$(jobs)" ]; do sleep 0.1; done';

/** A line for the shell, `< ` and one for the command, a key, or what must show. `W` is the wrapper, `V` one inside of it. */
type Step = string | RegExp;

const SCENARIOS: Record<string, Step[]> = {
  "Ctrl-C": [`W ${BUSY}`, RUNS, CTRL_C, STATUS],
  "Ctrl-\\": [`W ${ONCE}`, RUNS, CTRL_BACKSLASH, STATUS],
  "Ctrl-C that a command handles": [
    "W bash -c 'trap \"exit 4\" INT; while :; do printf run%s ning; sleep 0.05; done'",
    RUNS,
    CTRL_C,
    STATUS,
  ],
  "Ctrl-C while a handler goes on": [
    "W bash -c 'trap : INT; sh -c \"printf run%s ning; exec sleep 30\"; echo went-on; exit 8'",
    RUNS,
    CTRL_C,
    /went-on/,
    STATUS,
  ],
  "Ctrl-Z, fg, Ctrl-C": [`W ${BUSY}`, RUNS, CTRL_Z, /Stopped/, "fg", RUNS, CTRL_C, STATUS],
  "Ctrl-Z, bg, kill": [`W ${BUSY}`, RUNS, CTRL_Z, /Stopped/, "bg", RUNS, `kill %1; wait %1; ${STATUS}`],
  "Ctrl-Z, bg, fg, Ctrl-C": [
    ...[`W ${BUSY}`, RUNS, CTRL_Z, /Stopped/, "bg", RUNS, "jobs", /Running/],
    ...["fg", RUNS, CTRL_C, STATUS],
  ],
  "Ctrl-Z twice": [
    ...[`W ${BUSY}`, RUNS, CTRL_Z, /Stopped/, "fg", RUNS, CTRL_Z, /Stopped/, "jobs", /Stopped/],
    ...[`kill -9 %1; ${GONE}; echo rc=none.`],
  ],
  "Ctrl-Z, kill %1": [`W ${BUSY}`, RUNS, CTRL_Z, /Stopped/, `kill %1; ${GONE}; echo rc=none.`],
  "a group of its own: Ctrl-C": [`W timeout 60 ${BUSY}`, RUNS, CTRL_C, STATUS],
  "a group of its own: Ctrl-\\": [`W timeout 60 ${ONCE}`, RUNS, CTRL_BACKSLASH, STATUS],
  "a group of its own: Ctrl-Z, fg, Ctrl-C": [
    ...[`W timeout 60 ${BUSY}`, RUNS, CTRL_Z, /Stopped/, "fg", RUNS, CTRL_C, STATUS],
  ],
  "a group of its own reads": [
    "W timeout 60 bash -c 'printf run%s ning; read x; echo got-$x'",
    RUNS,
    "< hello",
    /got-hello/,
    STATUS,
  ],
  "a group of its own reads after Ctrl-Z and fg": [
    ...[
      "W timeout 60 bash -c 'printf run%s ning; read x; echo got-$x'",
      RUNS,
      CTRL_Z,
      /Stopped/,
      "fg",
      /timeout/,
    ],
    ...["< hello", /got-hello/, STATUS],
  ],
  "timeout --foreground: Ctrl-C": [`W timeout --foreground 60 ${BUSY}`, RUNS, CTRL_C, STATUS],
  "a session of its own": ["W setsid -w bash -c 'printf run%s ning; exit 3'", RUNS, STATUS],
  "head of a pipeline: Ctrl-C": [`W ${BUSY} | cat`, RUNS, CTRL_C, STATUSES],
  "head of a pipeline: Ctrl-Z, fg, Ctrl-C": [
    ...[`W ${BUSY} | cat`, RUNS, CTRL_Z, /Stopped/, "fg", RUNS, CTRL_C, STATUSES],
  ],
  "end of a pipeline": ["yes | W head -n 2", STATUSES],
  "in the background: wait": [`W bash -c 'sleep 0.2; exit 5' & wait $!; ${STATUS}`],
  "in the background: kill %1": [`W ${BUSY} &`, RUNS, `kill %1; wait %1; ${STATUS}`],
  "in the background: kill -INT %1": [`W ${BUSY} &`, RUNS, `kill -INT %1; wait %1; ${STATUS}`],
  "in the background: kill -TSTP, kill -CONT": [
    ...[`W ${BUSY} &`, RUNS, "kill -TSTP %1; until jobs | grep Stopp; do sleep 0.1; done", /Stopped/],
    ...[
      "kill -CONT %1; until jobs | grep Runn; do sleep 0.1; done",
      /Running/,
      `kill %1; wait %1; ${STATUS}`,
    ],
  ],
  "in the background it reads the terminal, then fg": [
    ...["W bash -c 'read x; echo got-$x' &", "until jobs | grep Stopp; do sleep 0.1; done", /Stopped/],
    ...["fg", /read/, "< hello", /got-hello/, STATUS],
  ],
  "in the background it writes, with stty tostop, then fg": [
    ...["stty tostop", "W bash -c 'echo out-put; exit 3' &"],
    ...["until jobs | grep Stopp; do sleep 0.1; done", /Stopped/, "fg", /out-put\r/, STATUS],
  ],
  "reads the terminal": [
    "W bash -c 'printf run%s ning; read x; echo got-$x'",
    RUNS,
    "< hello",
    /got-hello/,
    STATUS,
  ],
  "reads up to Ctrl-D": ["W bash -c 'printf run%s ning; cat; echo at-end'", RUNS, CTRL_D, /at-end/, STATUS],
  "in a subshell: Ctrl-C": [`(W ${BUSY}; echo after)`, RUNS, CTRL_C, STATUS],
  "in a subshell: Ctrl-Z, fg, Ctrl-C": [
    ...[`(W ${BUSY}; echo after)`, RUNS, CTRL_Z, /Stopped/, "fg", RUNS, CTRL_C, STATUS],
  ],
  "executed in place of a subshell: Ctrl-Z, fg, Ctrl-C": [
    ...[`(exec W ${BUSY})`, RUNS, CTRL_Z, /Stopped/, "fg", RUNS, CTRL_C, STATUS],
  ],
  "in a loop: Ctrl-C ends the loop": [`for i in 1 2 3; do W ${BUSY}; done; echo no`, RUNS, CTRL_C, STATUS],
  "in a substitution: Ctrl-C": [
    "x=$(W bash -c 'printf run%s ning >/dev/tty; sleep 30')",
    RUNS,
    CTRL_C,
    STATUS,
  ],
  "stops itself, fg": ["W bash -c 'kill -STOP $$; exit 6'", /Stopped/, "fg", /STOP/, STATUS],
  "kills itself": ["W bash -c 'kill -9 $$'", STATUS],
  "SIGINT ignored by the shell": [
    "trap '' INT; W bash -c 'printf run%s ning; sleep 0.5; exit 2'",
    RUNS,
    CTRL_C,
    STATUS,
  ],
  "nested: Ctrl-C": [`W V ${BUSY}`, RUNS, CTRL_C, STATUS],
  "nested: Ctrl-Z, fg, Ctrl-C": [`W V ${BUSY}`, RUNS, CTRL_Z, /Stopped/, "fg", RUNS, CTRL_C, STATUS],
  "an interactive shell inside: Ctrl-C, exit": [
    ...[
      "W env PS1='in> ' bash --norc -i",
      /in> /,
      "< bash -c 'printf run%s ning; sleep 30'",
      RUNS,
      CTRL_C,
      /in> /,
    ],
    ...["< exit 9", STATUS],
  ],
  "an interactive shell inside: Ctrl-Z stops its own job": [
    ...[
      "W env PS1='in> ' bash --norc -i",
      /in> /,
      "< bash -c 'printf run%s ning; sleep 30'",
      RUNS,
      CTRL_Z,
      /Stopped/,
    ],
    ...[`< kill -9 %1; ${GONE}; exit 9`, STATUS],
  ],
};

/** Takes the steps in a shell of its own. Returns the exit status that it has shown at the end. */
async function play(steps: Step[], wrapper: string, inner: string): Promise<string> {
  using dir = new TempDir();
  await using tty = new TerminalProcess(["bash", "--norc", "--noprofile", "-i"], {
    dir,
    columns: 200,
    env: { PS1: "P> ", PATH: `${binary.slice(0, binary.lastIndexOf("/"))}:${process.env.PATH}` },
  });
  await tty.shows("P> ");
  tty.type("stty -echo; bind 'set enable-bracketed-paste off'; PS1='Q''> '\n"); // what is typed shows no more
  let lines = 0;
  for (const step of steps) {
    if (step instanceof RegExp) await tty.shows(step);
    else if (step.length === 1) tty.type(step);
    else if (step.startsWith("< ")) tty.type(`${step.slice(2)}\n`);
    else {
      // A key flushes what was typed before it, termios(3): the shell must be ready. Each line ends in one prompt.
      const due = ++lines;
      await until(
        () => tty.output.split("Q> ").length > due,
        `prompt ${due}`,
        () => JSON.stringify(tty.output),
      );
      tty.type(`${step.replaceAll("W ", wrapper).replaceAll("V ", inner)}\n`);
    }
  }
  return await tty.shows(/rc=[^.]*\./);
}

describe.if(here)("as without the wrapper", () => {
  for (const [what, steps] of Object.entries(SCENARIOS)) {
    test(what, async () => {
      const [bare, wrapped] = await Promise.all([
        play(steps, "", ""),
        play(steps, "exclusive run l -- ", "exclusive run m -- "),
      ]);
      expect(wrapped).toBe(bare);
    }, 60_000);
  }
});
