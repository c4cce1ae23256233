/**
 * Runs every test file in a process and a session of its own, some at a time, the long ones first. The output of a file
 * that fails follows at once.
 */
import { availableParallelism } from "node:os";
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

async function run(file: string): Promise<Outcome> {
  const child = Bun.spawn([process.execPath, "test", "--timeout", "60000", file], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
    timeout: LIMIT_MS,
    killSignal: "SIGKILL",
  });
  const output = (
    await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()])
  ).join("");
  return { file, ok: (await child.exited) === 0, output };
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
console.log(`${queue.length} test files, ${AT_ONCE} at a time: about twelve minutes on two processors`);

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
for (const { file } of failed) console.log(`failed: ${file}`);
process.exit(failed.length === 0 ? 0 : 1);
