/**
 * Wrappers, shells and commands are killed at random around scripts whose children do the work. The witness is a lock of the
 * kernel's own in the children: a script that does not get it begins beside the work of another. Takes some 20 seconds;
 * `ORPHANS_RUNS=20000` is the full length, `ORPHANS_SEED` repeats one.
 */
import { expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { exclusive, type Process, start } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";
import { Random } from "./random.ts";

const RUNS = Number(process.env.ORPHANS_RUNS ?? 60);
const SEED = Number(process.env.ORPHANS_SEED ?? crypto.getRandomValues(new Uint32Array(1))[0]!);
/** Each fights for a lock with the others of its name, of which there are two. */
const FIGHTERS = 6;
/** After so long a run is taken for wedged. */
const WAIT_MS = 180_000;

/** `$1`: where its pid goes, `$2`: the witness, `$3`: where a violation goes; the rest: how long the children work. */
const SCRIPT = `
exec >/dev/null 2>&1 9>>"$2"
flock --nonblock 9 || echo "$$ began beside another" >>"$3"
echo $$ >"$1.new"; mv "$1.new" "$1"
shift 3
sleep "$1" &
setsid sleep "$2" &
setsid env -i sleep "$3" &
(trap "" TERM; sleep "$4"; true) &
sh -c 'sleep "$0"; true' "$5"
sleep "$1" | sleep "$2"
wait
`;

/** Leaves a daemon, which is not of the work, and ends by itself. */
const DAEMON = `exec >/dev/null 2>&1; setsid sleep 2 & exit 0`;

interface Tally {
  ended: Record<string, number>;
  delayed: string[];
}

class Fight implements Disposable {
  readonly dir = new TempDir();
  readonly home = new TempDir();
  readonly violations = this.home.file("violations");
  readonly tally: Tally = { ended: {}, delayed: [] };
  readonly #script = this.home.file("script.sh");
  readonly #random = new Random(SEED);
  #runs = 0;

  constructor() {
    writeFileSync(this.#script, SCRIPT);
    writeFileSync(this.violations, "");
  }

  async fight(fighter: number): Promise<void> {
    for (; this.#runs < RUNS; ) {
      const id = ++this.#runs;
      if (this.#random.chance(0.1)) await this.#leaveDaemon(`solo-${fighter}`);
      else await this.#run(id, `work-${fighter % 2}`);
    }
  }

  async #run(id: number, name: string): Promise<void> {
    const random = this.#random;
    const policy = random.pick([["--wait"], ["--wait"], ["--if-held", "replace"], []]);
    const pidFile = this.home.file(`pid-${id}`);
    const work = Array.from({ length: 5 }, () => String(random.next() * 1.2));
    const args = [this.#script, pidFile, this.home.file(`witness-${name}`), this.violations, ...work];
    const run = start(["run", "-q", ...policy, name, "--", "bash", ...args], { dir: this.dir });
    const action = random.pick([
      "none",
      "TERM",
      "KILL",
      "TERM command",
      "KILL command",
      "stop",
      "INT",
      "both",
    ]);
    if (action !== "none") {
      await Promise.race([this.#begins(pidFile, run), run.result]);
      await Bun.sleep(random.next() * 150);
      await this.#act(action, run, pidFile, name);
    }
    const { status, signal } = await run.result;
    const how = String(signal ?? status);
    this.tally.ended[how] = (this.tally.ended[how] ?? 0) + 1;
  }

  /** Waits for its turn among the others, which on a busy machine takes longer than `until` waits. */
  async #begins(pidFile: string, run: Process): Promise<void> {
    const limit = performance.now() + WAIT_MS;
    while (!existsSync(pidFile) && run.running) {
      if (performance.now() > limit) throw new Error(`a run waits without end: ${run.stderr}`);
      await Bun.sleep(5);
    }
  }

  async #act(action: string, run: Process, pidFile: string, name: string): Promise<void> {
    const command = existsSync(pidFile) ? Number(readFileSync(pidFile, "utf8")) : undefined;
    const send = (signal: NodeJS.Signals) => {
      try {
        if (command !== undefined) process.kill(command, signal);
      } catch {} // it has ended
    };
    if (action === "stop") await exclusive(["stop", "-q", "--grace", "50ms", name], { dir: this.dir });
    else if (action === "TERM command") send("SIGTERM");
    else if (action === "KILL command") send("SIGKILL");
    else run.kill(action === "TERM" ? "SIGTERM" : action === "INT" ? "SIGINT" : "SIGKILL");
    if (action === "both") send("SIGKILL");
  }

  /** The next run must begin at once, although the daemon of the last one lives. */
  async #leaveDaemon(name: string): Promise<void> {
    for (const script of [DAEMON, "exit 7"]) {
      const { status } = await exclusive(["run", name, "--", "bash", "-c", script], { dir: this.dir });
      if (status !== (script === DAEMON ? 0 : 7)) this.tally.delayed.push(`${name}: ${status}`);
    }
  }

  [Symbol.dispose](): void {
    this.dir[Symbol.dispose]();
    this.home[Symbol.dispose]();
  }
}

test(
  `${RUNS} runs, killed at random: the children of one never work beside another run, and none is kept out after them`,
  async () => {
    using fight = new Fight();
    await Promise.all(Array.from({ length: FIGHTERS }, (_, fighter) => fight.fight(fighter)));
    console.log(`orphans: seed ${SEED}, ${RUNS} runs, ended by ${JSON.stringify(fight.tally.ended)}`);
    expect(readFileSync(fight.violations, "utf8")).toBe("");
    expect(fight.tally.delayed).toEqual([]);
    expect(Object.keys(fight.tally.ended).length).toBeGreaterThan(3); // statuses and signals of every kind
    for (const name of ["work-0", "work-1"]) {
      const free = await exclusive(["run", "-t", "30s", name, "--", "true"], { dir: fight.dir });
      expect({ name, ...free }).toMatchObject({ status: 0 }); // no child works longer than three seconds
    }
    expect(fight.dir.list()).toEqual([]);
  },
  240_000 + RUNS * 2000,
);
