/**
 * Takes locks with the library again and again, in each of its ways, until it is stopped or killed:
 * `chaos.worker.ts SCENE LOCKS ID SEED [FAULT]`.
 */
import { existsSync } from "node:fs";
import { CannotAcquireLock, Lock, type LockOptions } from "../../src/index.ts";
import { Scene, type SectionMode } from "./checker.ts";
import { LOCKS } from "./lock-kinds.ts"; // nothing of ../support, which makes directories: this process is killed
import { Random } from "./random.ts";
import { type Fault, FaultyLock } from "./sabotaged-lock.ts";

const [sceneDir, dir, id, seed, fault] = process.argv.slice(2) as [string, string, string, string, Fault?];
const scene = new Scene(sceneDir);
const record = scene.recorder();
const random = new Random(Number(seed));
const stop = `${sceneDir}/stop`;

/** Pauses for up to `most` milliseconds, in one of a hundred calls. */
function maybePause(most: number): void {
  if (random.chance(0.01)) Bun.sleepSync(random.next() * most);
}

async function acquire(lock: Lock): Promise<boolean> {
  const way = random.below(1000); // a wait costs a thread
  try {
    if (way < 900) lock.acquireSync();
    else if (way < 985) await lock.acquire();
    else if (way < 990) await lock.acquire({ wait: true });
    else if (way < 995) await lock.acquire({ timeout: random.below(15) });
    else await lock.acquire({ wait: true, signal: AbortSignal.timeout(random.below(15)) });
    return true;
  } catch (error) {
    if (error instanceof CannotAcquireLock || (error as Error).name === "TimeoutError") return false;
    throw error;
  }
}

/** One of the locks, with random options. */
function randomLock(): { lock: Lock; name: string; mode: SectionMode } {
  const { name, mode: kind } = random.chance(0.5) ? LOCKS[0]! : random.pick(LOCKS);
  const options: LockOptions = { name, dir, keep: random.chance(0.1), label: id };
  let mode: SectionMode = kind;
  if (kind === "s" && random.chance(0.3)) mode = "x";
  if (mode === "s") options.shared = true;
  if (typeof mode === "number") options.slots = mode;
  return { lock: new Lock(options), name, mode };
}

async function takeSound(): Promise<void> {
  const { lock, name, mode } = randomLock();
  if (!(await acquire(lock))) return;
  record.enter(name, mode, id);
  maybePause(1);
  record.leave(name, mode, id);
  if (random.chance(0.9)) lock.releaseSync();
  else await lock.release();
}

function takeFaulty(fault: Fault): void {
  const pause = () => maybePause(0.2);
  const release = new FaultyLock(`${dir}/faulty`, fault, pause).tryAcquire();
  if (release === undefined) return;
  record.enter("faulty", "x", id);
  pause();
  record.leave("faulty", "x", id);
  release();
}

while (!existsSync(stop)) {
  if (fault !== undefined) takeFaulty(fault);
  else await takeSound();
}
process.exit(0);
