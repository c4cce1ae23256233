import { expect, test } from "bun:test";
import { Lock } from "../src/index.ts";
import { startScript } from "./support/process.ts";
import { TempDir } from "./support/temp-dir.ts";

const code = `{ using _ = new Lock({ name: "t" }).acquireSync(); } await (await new Lock({ name: "u" }).acquire()).release();`;

test("nothing is logged by default, and consola is not loaded", async () => {
  using dir = new TempDir();
  const loaded = `console.log(Object.keys(require.cache).some((file) => file.includes("consola")));`;
  const script = startScript(code + loaded, dir, { env: { EXCLUSIVE_LOG: undefined } });
  expect(await script.result).toMatchObject({ status: 0, stdout: "false\n", stderr: "" });
});

test("EXCLUSIVE_LOG=info shows each acquire and release, on stderr", async () => {
  using dir = new TempDir();
  const { stdout, stderr } = await startScript(code, dir, { env: { EXCLUSIVE_LOG: "info" } }).result;
  expect(stdout).toBe("");
  const lines = stderr.trimEnd().split("\n");
  expect(lines).toHaveLength(4);
  for (const [i, [what, name]] of [
    ["acquired", "t"],
    ["released", "t"],
    ["acquired", "u"],
    ["released", "u"],
  ].entries()) {
    expect(lines[i]).toContain("exclusive");
    expect(lines[i]).toContain(`${what} '${name}' (${dir.file(`exclusive_${name}.lock`)})`);
  }
});

test.each(["silent", "error", "warn"])("EXCLUSIVE_LOG=%s shows neither", async (level) => {
  using dir = new TempDir();
  expect(await startScript(code, dir, { env: { EXCLUSIVE_LOG: level } }).result).toMatchObject({
    stderr: "",
  });
});

test("a logger that is passed in gets each acquire and release, and no refusal", () => {
  using dir = new TempDir();
  const said: string[] = [];
  const logger = { info: (message: string) => said.push(message) };
  const options = { name: "t\n", dir: dir.path, logger };
  const lock = new Lock(options).acquireSync();
  expect(() => new Lock(options).acquireSync()).toThrow();
  lock.releaseSync();
  lock.releaseSync();
  const place = dir.file("exclusive_t%0A.lock");
  expect(said).toEqual([`acquired 't\\x0a' (${place})`, `released 't\\x0a' (${place})`]);
});
