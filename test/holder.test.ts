import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { decodeRecord, encodeRecord, type HolderRecord, newRecord, thisProcess } from "../src/holder.ts";
import { Lock } from "../src/index.ts";
import { startTime } from "../src/os/processes.ts";
import { stateOf } from "./support/proc.ts";
import { Process } from "./support/process.ts";
import { TempDir } from "./support/temp-dir.ts";
import { until } from "./support/until.ts";

const linux = process.platform === "linux";
const text = (record: HolderRecord, pid = process.pid): string =>
  new TextDecoder().decode(encodeRecord(record)).replace(/^\d+/, String(pid));
const record = (more: Partial<HolderRecord> = {}): HolderRecord => ({
  ...newRecord({ mode: "exclusive" }),
  ...more,
});

describe("the record", () => {
  test("in the file: the pid alone on line 1, one JSON object on line 2, and no secrets", () => {
    using dir = new TempDir();
    process.env.SECRET_OF_TEST = "s3cret";
    using lock = new Lock({ name: "t", dir: dir.path, label: "nightly\nrun" }).acquireSync();
    const content = readFileSync(lock.lockfile, "utf8");
    delete process.env.SECRET_OF_TEST;
    const lines = content.split("\n");
    expect(lines).toHaveLength(3);
    expect(lines[0]).toBe(String(process.pid));
    expect(lines[2]).toBe("");
    const written = JSON.parse(lines[1]!);
    expect(written).toMatchObject({ version: 1, mode: "exclusive", label: "nightly\nrun", ...thisProcess() });
    expect(Math.abs(Date.parse(written.acquired) - Date.now())).toBeLessThan(60_000);
    expect(content).not.toContain("s3cret");
    expect(content).not.toContain(process.argv[1]!);
  });

  test("is read back", () => {
    const acquired = "2026-01-02T03:04:05.678Z";
    expect(decodeRecord(text(record({ acquired, label: "x", command: 77, mode: "shared" })))).toMatchObject({
      pid: process.pid,
      alive: true,
      commandPid: 77,
      host: thisProcess().host,
      acquiredAt: new Date(acquired),
      mode: "shared",
      label: "x",
    });
  });

  test.each([
    "",
    "\n",
    "x",
    "0\n{}",
    "-5\n{}",
    "1e3\n",
    "99999999999\n",
    "2147483648\n",
    `{"pid":1}\n`,
    "\0\0\0",
  ])("of %j nothing is known", (content) => {
    expect(decodeRecord(content)).toEqual({});
  });

  test("a pidfile of another program yields its pid and nothing else", () => {
    for (const content of ["123\n", "123", "  123 \n", "123\nnot JSON", "123\n[1]", "123\nnull"])
      expect(decodeRecord(content)).toEqual({ pid: 123 });
  });

  test("fields of the wrong type are ignored", () => {
    const wrong = { label: 5, acquired: "yesterday", mode: "x", command: -1, host: [], boot: {} };
    expect(decodeRecord(`123\n${JSON.stringify(wrong)}\n`)).toEqual({ pid: 123 });
  });

  test("any content of the file is read without an error", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.jsonValue(), (junk, value) => {
        decodeRecord(junk);
        decodeRecord(`1\n${JSON.stringify(value)}`);
      }),
    );
  });
});

describe("alive", () => {
  const of = (more: Partial<HolderRecord>, pid?: number) => decodeRecord(text(record(more), pid)).alive;

  test("tells whether the process with that pid wrote the record", async () => {
    expect(of({})).toBe(true);
    expect(of({ started: "1" })).toBe(false); // the pid is used again
    expect(of({ started: undefined })).toBeUndefined();
    const gone = new Process(["true"]);
    await gone.result;
    expect(of({}, gone.pid)).toBe(false);
  });

  test("pids of another host, boot or pid namespace mean nothing here", () => {
    expect(of({ host: "elsewhere", boot: "b" })).toBeUndefined();
    expect(of({ boot: "an earlier boot" })).toBe(false);
    if (linux) expect(of({ pidns: "1" })).toBeUndefined();
  });

  test.if(linux)("a zombie is not alive", async () => {
    // The shell's child becomes a child of sleep, which reaps no child.
    await using parent = new Process(["sh", "-c", "sleep 0.01 & echo $!; exec sleep 60"]);
    await parent.says("\n");
    const pid = Number(parent.stdout);
    await until(() => stateOf(pid) === "Z", "a zombie");
    expect(startTime(pid)).toBeUndefined();
    expect(of({}, pid)).toBe(false);
  });

  test("a start time is stable, and differs between processes", async () => {
    const own = startTime("self");
    expect(own).toBeTruthy();
    expect(startTime(process.pid)).toBe(own!);
    await using other = new Process(["sleep", "60"]);
    expect(startTime(other.pid)).toBeTruthy();
    if (linux) expect(startTime(other.pid)).not.toBe(own!);
  });
});
