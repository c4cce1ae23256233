/**
 * Many processes contend for locks, are stopped, continued and killed at random, and an outsider deletes lock files.
 */
import { existsSync, readdirSync, unlinkSync, writeFileSync } from "node:fs";
import { Lock } from "../../src/index.ts";
import { queueHeadName, slotName } from "../../src/name.ts";
import * as kernel from "../../src/os/files.ts";
import { flock, LOCK } from "../../src/os/flock.ts";
import { FileStore } from "../../src/store/file/file-store.ts";
import { binary } from "../support/paths.ts";
import { stateOf } from "../support/proc.ts";
import { TempDir } from "../support/temp-dir.ts";
import { checkFile, type Recorder, Scene, SECTION } from "./checker.ts";
import { LOCKS } from "./lock-kinds.ts";
import { Random } from "./random.ts";
import type { Fault } from "./sabotaged-lock.ts";

export interface Options {
  milliseconds: number;
  seed: number;
  /** How many processes use the library, and how many the binary, at any time. */
  workers: number;
  wrappers: number;
  /** The workers take a broken lock instead, and nothing is killed. */
  fault?: Fault;
}

export interface Totals {
  acquisitions: number;
  kills: { workers: number; wrappers: number; commands: number };
  stops: number;
  /** Lock files deleted by the outsider. */
  deletions: number;
  violations: string[];
  /** Processes that did not end, and locks that could not be acquired when all processes had ended. */
  wedges: string[];
  /** Files that are left when all processes have ended. */
  leftovers: string[];
  /** Processes that ended with an unexpected status. */
  failures: string[];
}

const noTotals = (): Totals => ({
  acquisitions: 0,
  kills: { workers: 0, wrappers: 0, commands: 0 },
  stops: 0,
  deletions: 0,
  violations: [],
  wedges: [],
  leftovers: [],
  failures: [],
});

const PATIENCE_MS = 30_000;

/** A process that contends for locks. */
interface Contender {
  id: string;
  kind: "worker" | "wrapper";
  /** A wrapper that is replaced by its command. */
  exec: boolean;
  child: Bun.Subprocess<"ignore", "ignore", "pipe">;
  killed: boolean;
}

/** One round, in its own directories. */
export class Round {
  readonly #random: Random;
  readonly #temp = new TempDir();
  readonly #locks = this.#temp.file("locks");
  readonly #scene = new Scene(this.#temp.file("scene"));
  readonly #record: Recorder;
  readonly #contenders = new Set<Contender>();
  readonly #totals = noTotals();
  #count = 0;

  constructor(readonly options: Options) {
    this.#random = new Random(options.seed);
    new Scene(this.#locks);
    this.#record = this.#scene.recorder();
  }

  async run(): Promise<Totals> {
    const { milliseconds, workers, wrappers, fault } = this.options;
    try {
      const end = performance.now() + milliseconds;
      while (performance.now() < end) {
        this.#fill("worker", workers);
        this.#fill("wrapper", wrappers);
        await Bun.sleep(this.#random.below(20));
        if (fault === undefined) await this.#disturb();
      }
      await this.#stopAll();
      if (fault === undefined) await this.#allFree();
      const { acquisitions, violations } = checkFile(this.#scene);
      return { ...this.#totals, acquisitions, violations };
    } finally {
      for (const { child } of this.#contenders) child.kill("SIGKILL");
      this.#temp[Symbol.dispose]();
    }
  }

  #fill(kind: Contender["kind"], wanted: number): void {
    let there = [...this.#contenders].filter((contender) => contender.kind === kind).length;
    for (; there < wanted; there++) this.#start(kind);
  }

  #start(kind: Contender["kind"]): void {
    const id = `${kind}${this.#count++}`;
    const seed = String(this.#random.below(2 ** 31));
    const { argv, exec } = kind === "worker" ? this.#worker(id, seed) : this.#wrapper(id);
    const child = Bun.spawn(argv, {
      env: { ...process.env, EXCLUSIVE_DIR: this.#locks },
      stdio: ["ignore", "ignore", "pipe"],
    });
    const contender: Contender = { id, kind, exec, child, killed: false };
    this.#contenders.add(contender);
    const said = new Response(child.stderr).text();
    child.exited.then(async (status) => {
      this.#contenders.delete(contender);
      // 75: held, or the time ran out. 137: its command was killed.
      if (contender.killed || status === 0 || (kind === "wrapper" && (status === 75 || status === 137)))
        return;
      this.#totals.failures.push(
        `${argv.filter((arg) => arg !== SECTION).join(" ")}: ${status}: ${await said}`,
      );
    });
  }

  #worker(id: string, seed: string) {
    const { fault } = this.options;
    const file = `${import.meta.dir}/chaos.worker.ts`;
    const argv = [process.execPath, file, this.#scene.dir, this.#locks, id, seed, ...(fault ? [fault] : [])];
    return { argv, exec: false };
  }

  #wrapper(id: string) {
    const random = this.#random;
    const { name, mode: kind } = random.pick(LOCKS.slice(1));
    let mode = kind;
    const options: string[] = [];
    if (kind === "s" && random.chance(0.3)) mode = "x";
    if (mode === "s") options.push("--shared");
    if (typeof mode === "number") options.push("--slots", String(mode));
    const exec = random.chance(0.2);
    if (exec) options.push("--exec");
    if (random.chance(0.1)) options.push("--keep");
    const ways = [
      ["--wait"],
      ["--wait"],
      ["--timeout", `${random.below(30)}ms`],
      ["--if-held", "coalesce"],
      [],
    ];
    options.push(...random.pick(ways));
    const seconds = random.chance(0.5) ? "0" : `0.0${1 + random.below(5)}`;
    const argv = [binary, "run", "-q", ...options, name, "sh", "-c", SECTION, "sh"];
    return { argv: [...argv, this.#scene.dir, name, String(mode), id, seconds], exec };
  }

  /** Stops or kills one process, or deletes files; most often does nothing. */
  async #disturb(): Promise<void> {
    const random = this.#random;
    const victim = random.pick(
      [...this.#contenders].filter(({ killed, child }) => !killed && child.exitCode === null),
    );
    if (victim === undefined) return;
    const choice = random.below(10);
    if (choice === 0) return this.#deleteFreeFiles();
    if (choice <= 2) return this.#stopAndContinue(victim);
    if (victim.kind === "worker") {
      if (random.chance(0.8)) return; // workers are slow to start
      this.#totals.kills.workers++;
      this.#record.kill(victim.id);
      victim.killed = true;
      victim.child.kill("SIGKILL");
    } else if (random.chance(0.5)) {
      this.#killCommand(victim);
    } else {
      // Its command, if there is one, lives on and holds the lock. With --exec the two are one process.
      if (victim.exec) this.#record.kill(victim.id);
      this.#totals.kills.wrappers++;
      victim.killed = true;
      victim.child.kill("SIGKILL");
    }
  }

  #killCommand(wrapper: Contender): void {
    const { pid } = wrapper.child;
    const children = kernel.readText(`/proc/${pid}/task/${pid}/children`)?.split(" ").filter(Boolean);
    if (wrapper.exec || children?.length !== 1) return;
    this.#record.kill(wrapper.id);
    try {
      process.kill(Number(children[0]), "SIGKILL");
      this.#totals.kills.commands++;
    } catch {} // it has ended
  }

  async #stopAndContinue({ child }: Contender): Promise<void> {
    this.#totals.stops++;
    child.kill("SIGSTOP");
    await Bun.sleep(this.#random.below(30));
    child.kill("SIGCONT");
  }

  /** Stops all processes, wherever they are, and deletes the files of free locks. */
  async #deleteFreeFiles(): Promise<void> {
    const all = [...this.#contenders];
    for (const { child } of all) child.kill("SIGSTOP");
    try {
      const deadline = performance.now() + 1000;
      while (!all.every(({ child }) => standsStill(child.pid))) {
        if (performance.now() > deadline) return; // one is in a call that cannot be interrupted
        await Bun.sleep(1);
      }
      for (const file of readdirSync(this.#locks)) this.#deleteIfFree(`${this.#locks}/${file}`);
    } finally {
      for (const { child } of all) child.kill("SIGCONT");
    }
  }

  #deleteIfFree(path: string): void {
    const { O } = kernel;
    const fd = kernel.open(path, O.RDONLY);
    if (typeof fd === "string") return;
    if (flock(fd, LOCK.EX | LOCK.NB) === undefined) {
      unlinkSync(path);
      this.#totals.deletions++;
    }
    kernel.close(fd);
  }

  /** Lets every process finish what it is doing. */
  async #stopAll(): Promise<void> {
    writeFileSync(`${this.#scene.dir}/stop`, "");
    const end = performance.now() + PATIENCE_MS;
    while (this.#contenders.size > 0 && performance.now() < end) await Bun.sleep(5);
    for (const { child } of this.#contenders) {
      const wchan = kernel.readText(`/proc/${child.pid}/wchan`);
      const argv = kernel.readText(`/proc/${child.pid}/cmdline`)?.replaceAll("\0", " ");
      this.#totals.wedges.push(`pid ${child.pid} does not end (in ${wchan}): ${argv}`);
    }
  }

  /** Checks that each lock can be acquired, and that nothing is left of it after its release. */
  async #allFree(): Promise<void> {
    const names = LOCKS.flatMap(({ name, mode }) =>
      typeof mode === "number" ? Array.from({ length: mode }, (_, i) => slotName(name, i + 1)) : [name],
    );
    for (const name of names) {
      try {
        // Commands whose wrapper was killed may still be running their last line.
        await using _ = await new Lock({ name, dir: this.#locks }).acquire({ timeout: PATIENCE_MS });
      } catch (error) {
        this.#totals.wedges.push((error as Error).message);
      }
    }
    for (const { name } of LOCKS) {
      const queueHead = new FileStore({ dir: this.#locks }).tryAcquireSync({
        name: queueHeadName(name),
        mode: "exclusive",
      });
      if (queueHead === undefined) this.#totals.wedges.push(`the head of the queue for ${name} is held`);
      queueHead?.releaseSync();
    }
    this.#totals.leftovers.push(...readdirSync(this.#locks));
    for (const { name } of LOCKS) {
      if (existsSync(this.#scene.marker(name)) && this.#totals.kills.commands === 0)
        this.#totals.leftovers.push(this.#scene.marker(name));
    }
  }
}

/** Is this process stopped or gone? */
const standsStill = (pid: number): boolean => "TtZX".includes(stateOf(pid) ?? "X");

/** Runs rounds of ten seconds at most, so that no log grows too long. Returns their sum. */
export async function chaos(options: Options, report?: (totals: Totals) => void): Promise<Totals> {
  const sum = noTotals();
  const random = new Random(options.seed);
  const end = performance.now() + options.milliseconds;
  for (let left = options.milliseconds; left > 0; left = end - performance.now()) {
    const round = new Round({
      ...options,
      seed: random.below(2 ** 31),
      milliseconds: Math.min(left, 10_000),
    });
    const totals = await round.run();
    sum.acquisitions += totals.acquisitions;
    sum.stops += totals.stops;
    sum.deletions += totals.deletions;
    for (const who of ["workers", "wrappers", "commands"] as const) sum.kills[who] += totals.kills[who];
    for (const what of ["violations", "wedges", "leftovers", "failures"] as const)
      sum[what].push(...totals[what]);
    report?.(sum);
  }
  return sum;
}
