import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { UsageError } from "../../../src/command/cli/exit-status.ts";
import { plan } from "../../../src/command/run.ts";
import { TempDir } from "../../support/temp-dir.ts";

const given = process.env.EXCLUSIVE_STORE;
beforeEach(() => {
  delete process.env.EXCLUSIVE_STORE;
  delete process.env.EXCLUSIVE_LOG_FILE;
});
afterAll(() => {
  if (given === undefined) delete process.env.EXCLUSIVE_STORE;
  else process.env.EXCLUSIVE_STORE = given;
});

const planOf = (...args: string[]) => plan([...args, "n", "--", "true"]);

describe("a plan", () => {
  test("without options: refuse at once, with 75", () => {
    expect(planOf()).toEqual({
      argv: ["true"],
      request: { name: "n", mode: "exclusive", label: undefined, slots: undefined },
      store: { dir: undefined, file: undefined, keep: undefined },
      exec: false,
      close: false,
      inherit: false,
      policy: "fail",
      wait: false,
      timeout: undefined,
      conflictStatus: 75,
      verbosity: { quiet: undefined, verbose: undefined, json: false },
    });
  });

  test("with all options of a lock in a file", () => {
    const options = ["-w", "-t", "1m", "-s", "--exec", "-E", "3", "--label", "L", "--keep", "--dir", "/d"];
    expect(planOf(...options, "-q", "-v", "--log-format", "json")).toEqual({
      argv: ["true"],
      request: { name: "n", mode: "shared", label: "L", slots: undefined },
      store: { dir: "/d", file: undefined, keep: true },
      exec: true,
      close: false,
      inherit: false,
      policy: "fail",
      wait: true,
      timeout: 60_000,
      conflictStatus: 3,
      verbosity: { quiet: true, verbose: true, json: true },
    });
    expect(planOf("--log-file", "/l", "--on-event", "x")).toMatchObject({ logFile: "/l", onEvent: "x" });
    expect(planOf("--slots", "3").request).toMatchObject({ mode: "exclusive", slots: 3 });
    expect(planOf("--file", "/f").store).toMatchObject({ file: "/f" });
  });

  test("the command is what stands behind NAME, with or without --", () => {
    expect(plan(["n", "sh", "-c", "x"]).argv).toEqual(["sh", "-c", "x"]);
    expect(plan(["n", "--", "sh", "-c", "x"]).argv).toEqual(["sh", "-c", "x"]);
    expect(plan(["n", "--", "--", "x"]).argv).toEqual(["--", "x"]);
    expect(plan(["n", "sh", "--wait"])).toMatchObject({ wait: false, argv: ["sh", "--wait"] });
  });

  test.each([
    ["fail", false],
    ["skip", false],
    ["coalesce", true],
    ["latest", true],
    ["replace", true],
  ] as const)("--if-held %s waits: %p", (policy, wait) => {
    expect(planOf("--if-held", policy)).toMatchObject({ policy, wait });
  });

  test("a store by its URL, from an option, a file or the environment", () => {
    const remote = { url: "redis://h", ttl: 6000 };
    expect(planOf("--store", "redis://h", "--ttl", "6s").store).toEqual(remote);
    using dir = new TempDir();
    writeFileSync(dir.file("url"), "redis://h\n");
    expect(planOf("--store-file", dir.file("url"), "--ttl", "6s").store).toEqual(remote);
    process.env.EXCLUSIVE_STORE = "redis://h";
    expect(planOf("--ttl", "6s").store).toEqual(remote);
    expect(planOf("--dir", "/d").store).toMatchObject({ dir: "/d" });
    expect(planOf("--store", "file:///d").store).toMatchObject({ dir: "/d" });
  });
});

describe("no plan", () => {
  test.each([
    [[], "missing NAME"],
    [["n"], "missing COMMAND"],
    [["n", "--"], "missing COMMAND"],
    [["--if-held", "skpi", "n", "x"], "did you mean skip?"],
    [["--log-format", "xml", "n", "x"], "--log-format takes text, json"],
    [["-E", "256", "n", "x"], "--conflict-exit-code takes a whole number from 0 to 255"],
    [["--slots", "1.5", "n", "x"], "--slots takes a whole number from 1 to 64"],
    [["--if-held", "coalesce", "--file", "f", "n", "x"], "coalesce cannot be combined with --file"],
    [["--if-held", "latest", "--file", "f", "n", "x"], "latest cannot be combined with --file"],
    [["--if-held", "replace", "--slots", "2", "n", "x"], "replace cannot be combined with --slots"],
    [["--exec", "--store", "redis://h", "n", "x"], "--exec cannot be combined with a store"],
    [["--dir", "d", "--store", "redis://h", "n", "x"], "--dir is for locks in files"],
  ])("%j is wrong usage", (args, message) => {
    expect(() => plan(args)).toThrow(UsageError);
    expect(() => plan(args)).toThrow(message);
  });

  test.each([
    [["--timeout", "soon", "n", "x"], RangeError],
    [["--slots", "0", "n", "x"], UsageError],
    [["--slots", "2", "--shared", "n", "x"], UsageError],
    [["--store", "ldap://h", "n", "x"], TypeError],
    [["", "x"], TypeError],
  ])("%j", (args, error) => {
    expect(() => plan(args)).toThrow(error);
  });
});
