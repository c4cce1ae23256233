/**
 * Kills the program before every system call, from the first one that touches the lock file to the last. Afterwards no
 * process may be kept waiting, nor run beside the command.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { Lock } from "../../src/index.ts";
import { fileName, slotName } from "../../src/name.ts";
import { exclusive, type Process, start } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";
import { checkFile, Scene, SECTION } from "./checker.ts";
import {
  type Call,
  callsOf,
  DEAD_RECORD,
  each,
  groupLives,
  type Outcome,
  tamper,
  whileHeld,
} from "./syscall-injection.ts";

/**
 * Calls that change nothing another process can see. How many the engine makes varies. Looks at other processes in /proc are
 * among them: there are as many as the machine has processes.
 */
const PRIVATE =
  /^(brk|clock_\w+|futex|getpid|getrandom|gettid|madvise|mmap|mprotect|munmap|rt_sigprocmask|sched_\w+)\(|CLONE_THREAD|anon_inode|["<]\/proc[/">]/;

interface Scenario {
  args: string[];
  /** The lock's names in the directory. */
  names: string[];
  /** The lock is taken in shared mode. */
  shared?: boolean;
  /** A crashed holder has left its file. */
  leftover?: boolean;
  /** The lock is held, and released when the victim waits for it. */
  held?: boolean;
  /** A command runs, and the victim is `stop`. */
  stop?: boolean;
}

const SCENARIOS: Record<string, Scenario> = {
  run: { args: ["run", "t"], names: ["t"] },
  "run, where a crash has left the file": { args: ["run", "t"], names: ["t"], leftover: true },
  "run --keep": { args: ["run", "--keep", "t"], names: ["t"] },
  "run --shared": { args: ["run", "--shared", "t"], names: ["t"], shared: true },
  "run --slots 2": { args: ["run", "--slots", "2", "t"], names: [slotName("t", 1), slotName("t", 2)] },
  "run --exec": { args: ["run", "--exec", "t"], names: ["t"] },
  stop: { args: ["stop", "--quiet", "t"], names: ["t"], stop: true },
  "run --wait": { args: ["run", "--quiet", "--wait", "t"], names: ["t"], held: true },
};

/** One victim in its own directories. */
class Stage extends TempDir {
  readonly scene = new Scene(this.file("scene"));
  readonly record = this.scene.recorder();
  readonly locks = new TempDir();

  #stopped: Process | undefined;

  constructor(readonly scenario: Scenario) {
    super();
    if (scenario.leftover) writeFileSync(this.locks.file(fileName(scenario.names[0]!)), DEAD_RECORD);
  }

  async victim(inject?: string): Promise<Outcome> {
    const { args, held, shared, stop } = this.scenario;
    if (stop) {
      const command = ["sh", "-c", 'echo "E t x stopped" >>"$1"; exec sleep 60', "sh", this.scene.log];
      this.#stopped = start(["run", "t", ...command], { dir: this.locks });
      await until(() => readFileSync(this.scene.log, "utf8").includes("E t x stopped"), "the command");
      this.record.kill("stopped");
    }
    const section = ["sh", "-c", SECTION, "sh", this.scene.dir, "t", shared ? "s" : "x", "victim", "0.01"];
    const command = stop ? [] : section;
    const victim = () => tamper([...args, ...command], this.locks, { inject });
    return held ? whileHeld(this.locks.path, "t", victim) : victim();
  }

  /** Checks that the lock can be taken now, and that nothing is left after that. */
  async allIsWell(group: number): Promise<void> {
    if (this.#stopped !== undefined) {
      // Whether or not the victim stopped the holder, a second `stop` does, or finds the lock free.
      expect(await exclusive(["stop", "--quiet", "t"], { dir: this.locks })).toMatchObject({ status: 0 });
      await this.#stopped.result;
    }
    // While the command of a killed wrapper lives, an acquisition must not meet it: the log shows that.
    for (;;) {
      const over = !groupLives(group);
      for (const name of this.scenario.names) this.enter(name, over);
      if (over) break;
      await Bun.sleep(1);
    }
    expect(readdirSync(this.locks.path)).toEqual([]);
    expect(checkFile(this.scene).violations).toEqual([]);
  }

  /** @param must fail when the lock is held */
  enter(name: string, must: boolean): void {
    const lock = new Lock({ name, dir: this.locks.path });
    try {
      lock.acquireSync();
    } catch (error) {
      if (must) throw error;
      return;
    }
    const section = this.scenario.names.length > 1 ? name : "t";
    this.record.enter(section, "x", "next");
    this.record.leave(section, "x", "next");
    lock.releaseSync();
  }

  override [Symbol.dispose](): void {
    this.locks[Symbol.dispose]();
    super[Symbol.dispose]();
  }
}

async function recorded(scenario: Scenario): Promise<Call[]> {
  using stage = new Stage(scenario);
  const { trace, status, stderr, group } = await stage.victim();
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  await stage.allIsWell(group);
  const calls = callsOf(trace);
  const first = calls.findIndex(({ text }) => text.includes(stage.locks.path) && !text.startsWith("exec"));
  const end = calls.findIndex(({ name }, i) => i > first && name === "execve");
  return calls.slice(first, end < 0 ? undefined : end + 1).filter(({ text }) => !PRIVATE.test(text));
}

/**
 * The calls before which to crash: all from the first one on the lock file, except those that are not made in each run.
 */
async function points(scenario: Scenario): Promise<Call[]> {
  const [calls, ...others] = [await recorded(scenario), await recorded(scenario), await recorded(scenario)];
  return calls!.filter(({ name, nth }) =>
    others.every((other) => other.some((call) => call.name === name && call.nth === nth)),
  );
}

let covered = 0;
afterAll(() => console.log(`crash: ${covered} points covered`));

describe.if(required("strace", "strace"))("a crash at every system call of", () => {
  for (const [name, scenario] of Object.entries(SCENARIOS)) {
    test(name, async () => {
      const calls = await points(scenario);
      expect(calls.length).toBeGreaterThan(10);
      await each(calls, 2, async ({ name, nth, text }) => {
        // The number of calls that the engine makes varies a little: the last ones may need another try.
        for (let tries = 0; tries < 10; tries++) {
          using stage = new Stage(scenario);
          const { fired, group } = await stage.victim(`${name}:signal=SIGKILL:when=${nth}`);
          await stage.allIsWell(group);
          if (!fired) continue;
          covered++;
          return;
        }
        throw new Error(`never fired: ${name}, the ${nth}th: ${text}`);
      });
    }, 300_000);
  }
});
