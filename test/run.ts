/**
 * Runs every test file in a process and a session of its own, some at a time, the long ones first. The output of a file
 * that fails follows at once. A file that leaves a file, a mount or a process of ours behind fails; commands that outlive
 * their killed wrapper, as tests want them to, are ended.
 */
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "./support/paths.ts";

const AT_ONCE = availableParallelism() + 1;
const LIMIT_MS = 10 * 60_000;
/** These take minutes: they start first, so that none of them is left for the end. */
const LONG =
  /torture\/(crash|fault|hostile|orphans)|targets|npm|release|flock|faults|run\.(signals|orphans|probe)|surroundings/;

interface Outcome {
  file: string;
  ok: boolean;
  output: string;
}

/** Names the test file in the environment of all processes that its tests start. */
const MARK = "EXCLUSIVE_TEST_FILE";

async function run(file: string): Promise<Outcome> {
  const temp = mkdtempSync(join(tmpdir(), "x-"));
  chmodSync(temp, 0o1777);
  const mark = `${file} ${process.pid}`;
  const child = Bun.spawn([process.execPath, "test", "--timeout", "60000", "--max-concurrency", "4", file], {
    cwd: root,
    env: { ...process.env, TMPDIR: temp, [MARK]: mark },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
    timeout: LIMIT_MS,
    killSignal: "SIGKILL",
  });
  const output = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const status = await child.exited;
  const left = status === 0 ? await leftBy(`${MARK}=${mark}`, temp) : [];
  rmSync(temp, { recursive: true, force: true });
  for (const what of left) output.push(`left behind: ${what}\n`);
  return { file, ok: status === 0 && left.length === 0, output: output.join("") };
}

/** What a test file has left behind; a process that is ending is given some seconds. */
async function leftBy(mark: string, temp: string): Promise<string[]> {
  const deadline = performance.now() + 5000;
  for (;;) {
    const mounts = process.platform === "linux" ? readFileSync("/proc/mounts", "utf8").split("\n") : [];
    const left = [
      ...processesWith(mark),
      ...readdirSync(temp)
        .filter((name) => name !== "node-compile-cache") // of tsc
        .map((name) => join(temp, name)),
      ...mounts.filter((line) => line.includes(temp)),
    ];
    if (left.length === 0 || performance.now() > deadline) return left.filter(isOurs);
    await Bun.sleep(100);
  }
}

/** Ends a process that is not ours. */
function isOurs(left: string): boolean {
  const pid = Number(/^(\d+) (?!.*(exclusive|bun))/.exec(left)?.[1] ?? 0);
  if (pid === 0) return true;
  try {
    process.kill(pid, "SIGKILL");
  } catch {} // it has ended
  return false;
}

/** The pids and command lines of living processes with this in their environment. */
function processesWith(mark: string): string[] {
  if (process.platform !== "linux") return [];
  const found: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (!readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(mark)) continue;
      found.push(`${pid} ${readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")}`);
    } catch {} // it has ended
  }
  return found;
}

const count = (outcomes: Outcome[], what: string): number =>
  outcomes.reduce((sum, { output }) => {
    return sum + Number(new RegExp(`^ *(\\d+) ${what}$`, "m").exec(output)?.[1] ?? 0);
  }, 0);

const files = Array.from(new Bun.Glob("test/**/*.test.ts").scanSync(root)).sort();
const wanted = process.argv.slice(2);
const queue = files
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  .sort((a, b) => Number(LONG.test(b)) - Number(LONG.test(a)));
console.log(`${queue.length} test files, ${AT_ONCE} at a time: about sixteen minutes on two processors`);

const outcomes: Outcome[] = [];
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const started = performance.now();
      const outcome = await run(file);
      outcomes.push(outcome);
      const seconds = Math.round((performance.now() - started) / 1000);
      console.log(`${outcome.ok ? "pass" : "FAIL"} ${file} (${seconds} s)`);
      if (!outcome.ok) console.log(outcome.output);
    }
  }),
);
const failed = outcomes.filter(({ ok }) => !ok);
const fails = Math.max(count(outcomes, "fail"), failed.length);
console.log(` ${count(outcomes, "pass")} pass\n ${fails} fail`);
for (const { file, output } of failed) {
  console.log(`failed: ${file}`);
  for (const line of new Set(output.match(/^(error: .*|\(fail\) .*|left behind: .*)$/gm)))
    console.log(`  ${line.slice(0, 300)}`);
}
process.exit(failed.length === 0 ? 0 : 1);
