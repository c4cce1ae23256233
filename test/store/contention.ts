/** Many processes contend for one lock of a store, and some of them are killed. */
import { readFileSync, writeFileSync } from "node:fs";
import { TempDir } from "../support/temp-dir.ts";
import { checkFile, Scene, type Verdict } from "../torture/checker.ts";
import { Random } from "../torture/random.ts";

export const LOCK = "contended";
/** The tokens, in the order in which their holders had the lock. */
export const tokenLog = (scene: Scene): string => `${scene.dir}/tokens`;

export interface Contest {
  url: string;
  ttl: string;
  processes: number;
  milliseconds: number;
  /** It goes on until the lock was held so often, for a minute at most: twenty engines start slowly on a busy machine. */
  atLeast: number;
  /** Mean time between kills. */
  killEvery: number;
}

export interface Result extends Verdict {
  tokens: bigint[];
  kills: number;
  /** Processes that ended with an unexpected status. */
  failures: string[];
}

interface Contender {
  id: string;
  child: Bun.Subprocess<"ignore", "ignore", "pipe">;
  killed: boolean;
}

/** Lets the processes contend, and checks their log. */
export async function contend(contest: Contest): Promise<Result> {
  const { url, ttl, processes, milliseconds, atLeast, killEvery } = contest;
  using temp = new TempDir();
  const scene = new Scene(temp.file("scene"));
  writeFileSync(tokenLog(scene), "");
  const record = scene.recorder();
  const random = new Random(crypto.getRandomValues(new Uint32Array(1))[0]!);
  const contenders = new Set<Contender>();
  const failures: string[] = [];
  let count = 0;
  let kills = 0;

  const start = () => {
    const id = `contender${count++}`;
    const args = [scene.dir, url, ttl, id, String(random.below(2 ** 31))];
    const child = Bun.spawn([process.execPath, `${import.meta.dir}/contention.worker.ts`, ...args], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    const contender = { id, child, killed: false };
    contenders.add(contender);
    const said = new Response(child.stderr).text();
    child.exited.then(async (status) => {
      contenders.delete(contender);
      if (!contender.killed && status !== 0) failures.push(`${id}: ${status}: ${await said}`);
    });
  };
  try {
    const begun = performance.now();
    const held = () => readFileSync(tokenLog(scene), "utf8").split("\n").length - 1;
    const goesOn = (passed: number) => passed < milliseconds || (passed < 60_000 && held() < atLeast);
    let nextKill = performance.now() + killEvery;
    while (goesOn(performance.now() - begun)) {
      while (contenders.size < processes) start();
      await Bun.sleep(10);
      if (performance.now() < nextKill) continue;
      nextKill = performance.now() + 2 * random.next() * killEvery;
      const victim = random.pick([...contenders].filter(({ killed }) => !killed));
      if (victim === undefined) continue;
      record.kill(victim.id);
      victim.killed = true;
      victim.child.kill("SIGKILL");
      kills++;
    }
    writeFileSync(`${scene.dir}/stop`, "");
    await Promise.all([...contenders].map(({ child }) => child.exited));
    const tokens = readFileSync(tokenLog(scene), "utf8").split("\n").filter(Boolean).map(BigInt);
    return { ...checkFile(scene), tokens, kills, failures };
  } finally {
    for (const { child } of contenders) child.kill("SIGKILL");
  }
}
