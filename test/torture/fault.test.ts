/**
 * Every call on the lock file fails, once or permanently, with each error that it can have. And every call is slow while
 * other processes contend for the lock. The result must be a valid lock, or an error that names the cause.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { Lock } from "../../src/index.ts";
import { fileName, slotName } from "../../src/name.ts";
import { errorText } from "../../src/os/errors.ts";
import { FILE_MODE } from "../../src/store/file/lock-file.ts";
import { start } from "../support/process.ts";
import { required } from "../support/required.ts";
import { TempDir } from "../support/temp-dir.ts";
import { checkFile, Scene, SECTION } from "./checker.ts";
import {
  type Call,
  callsOf,
  DEAD_RECORD,
  each,
  type Outcome,
  tamper,
  whileHeld,
} from "./syscall-injection.ts";

const ERRORS = ["ENOSPC", "EROFS", "EACCES", "EMFILE", "EIO", "EINTR", "ENOLCK", "ENOMEM"] as const;

interface Scenario {
  args: string[];
  /** The lock whose file is tampered with. */
  lock: string;
  /** A crashed holder has left its file. */
  leftover?: boolean;
  /** The lock is held, and released when the victim waits for it. */
  held?: boolean;
  thorough?: boolean;
}

const SCENARIOS: Record<string, Scenario> = {
  run: { args: ["run", "t"], lock: "t", thorough: true },
  "run, where a crash has left the file": { args: ["run", "t"], lock: "t", leftover: true },
  "run --keep": { args: ["run", "--keep", "t"], lock: "t" },
  "run --shared": { args: ["run", "--shared", "t"], lock: "t" },
  "run --slots 2": { args: ["run", "--slots", "2", "t"], lock: slotName("t", 1) },
  "run --exec": { args: ["run", "--exec", "t"], lock: "t" },
  "run --wait": { args: ["run", "--quiet", "--wait", "t"], lock: "t", held: true },
};

/** An independent check that the lock is held: flock(1) of util-linux. */
const PROOF = 'flock -n "$EXCLUSIVE_LOCKFILE" echo nobody holds it; echo ran';

class Stage extends TempDir {
  readonly target: string;

  constructor(readonly scenario: Scenario) {
    super();
    this.target = this.file(fileName(scenario.lock));
    if (scenario.leftover) writeFileSync(this.target, DEAD_RECORD, { mode: FILE_MODE }); // as a crash leaves it
  }

  async victim(inject?: string, command = ["sh", "-c", PROOF]): Promise<Outcome> {
    const { args, held } = this.scenario;
    const victim = () => tamper([...args, ...command], this, { inject, path: this.target });
    return held ? whileHeld(this.path, "t", victim) : victim();
  }

  async calls(): Promise<Call[]> {
    const { trace, ...result } = await this.victim();
    expect(result).toMatchObject({ status: 0, stdout: "ran\n", stderr: "" });
    const calls = callsOf(trace);
    const end = calls.findIndex(({ name }) => name === "execve");
    return end < 0 ? calls : calls.slice(0, end);
  }

  /** Checks that the lock is free, and that nothing is left after it was taken. */
  allIsWell(): void {
    new Lock({ name: this.scenario.lock, dir: this.path }).acquireSync().releaseSync();
    expect(readdirSync(this.path)).toEqual([]);
  }
}

/** One error in one call. With `times` "+", also in all later calls of that name. */
interface Fault {
  call: Call;
  error: (typeof ERRORS)[number];
  times: "" | "+";
}

/** Every error, once and permanently. Unless `thorough`, only one of those that are handled alike. */
function faultsOf(call: Call, thorough: boolean | undefined): Fault[] {
  const errors = thorough ? ERRORS : (["EIO", "EINTR"] as const);
  return errors.flatMap((error): Fault[] => {
    const once: Fault = { call, error, times: "" };
    // An interrupted call is repeated, so one that is always interrupted would never end.
    return error === "EINTR" ? [once] : [once, { call, error, times: "+" }];
  });
}

/** Undefined for a valid lock or an error that names the cause; otherwise what is wrong. */
function judge({ error }: Fault, { status, stdout, stderr }: Outcome): string | undefined {
  if (status === 0) return stdout === "ran\n" && stderr === "" ? undefined : "it says that all went well";
  // A shortage of descriptors or memory says nothing about the lock file: 71.
  const scarce = error === "EMFILE" || error === "ENOMEM";
  if (status !== (scarce ? 71 : 73) && (scarce || status !== 74)) return "no exit status for this";
  if (stdout !== "") return "the command ran all the same";
  const text = errorText(error);
  const said = /^exclusive: cannot [^\n]*\n$/.test(stderr) && stderr.includes(text);
  return said ? undefined : `it does not say ${text}`;
}

let failed = 0;
let delayed = 0;
afterAll(() => console.log(`fault: ${failed} failures and ${delayed} delays covered`));

describe.if(required("strace", "strace"))("every call on the lock file fails:", () => {
  for (const [name, scenario] of Object.entries(SCENARIOS)) {
    test(name, async () => {
      using model = new Stage(scenario);
      const calls = await model.calls();
      expect(calls.length).toBeGreaterThan(5);
      const faults = calls.flatMap((call) => faultsOf(call, scenario.thorough));
      const wrong: string[] = [];
      await each(faults, 2, async (fault) => {
        using stage = new Stage(scenario);
        const { call, error, times } = fault;
        const outcome = await stage.victim(`${call.name}:error=${error}:when=${call.nth}${times}`);
        const verdict = outcome.fired ? judge(fault, outcome) : "never fired";
        const { status, stdout, stderr } = outcome;
        if (verdict !== undefined)
          wrong.push(
            `${call.name} ${call.nth}${times} ${error}: ${verdict}: ${JSON.stringify({ status, stdout, stderr })}`,
          );
        else failed++;
        stage.allIsWell();
      });
      expect(wrong).toEqual([]);
    }, 300_000);
  }
});

/** Enough time for the other processes to take and release the lock. */
const DELAY_US = 10_000;

describe.if(required("strace", "strace"))("every call on the lock file is slow:", () => {
  for (const [name, scenario] of Object.entries(SCENARIOS)) {
    if (scenario.lock !== "t") continue;
    test(name, async () => {
      using model = new Stage(scenario);
      const calls = await model.calls();
      const points = calls.flatMap(({ name, nth }) =>
        ["enter", "exit"].map((where) => `${name}:delay_${where}=${DELAY_US}:when=${nth}`),
      );
      const attempt = async (inject: string): Promise<boolean> => {
        using stage = new Stage(scenario);
        using side = new TempDir();
        const scene = new Scene(side.file("scene"));
        const record = scene.recorder();
        const section = (id: string, mode: string) => [
          "sh",
          "-c",
          SECTION,
          "sh",
          scene.dir,
          "t",
          mode,
          id,
          "0",
        ];
        const shared = scenario.args.includes("--shared");
        const victim = stage.victim(inject, section("victim", shared ? "s" : "x"));
        let over = false;
        victim.finally(() => {
          over = true;
        });
        await using other = start(["run", "--wait", "-q", "t", ...section("other", "x")], { dir: stage });
        while (!over) {
          try {
            using _ = new Lock({ name: "t", dir: stage.path }).acquireSync();
            record.enter("t", "x", "this");
            record.leave("t", "x", "this");
          } catch {} // held
          await Bun.sleep(1);
        }
        const { fired, status, stderr } = await victim;
        if (status !== 75) expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
        expect((await other.result).status).toBe(0);
        expect(checkFile(scene).violations).toEqual([]);
        stage.allIsWell();
        return fired;
      };
      await each(points, 2, async (inject) => {
        // A victim that is slower than another process is refused before it reaches that call.
        for (let tries = 0; tries < 50; tries++) {
          if (!(await attempt(inject))) continue;
          delayed++;
          return;
        }
        throw new Error(`never fired: ${inject}`);
      });
    }, 300_000);
  }
});
