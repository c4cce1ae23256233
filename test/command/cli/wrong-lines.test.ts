/** Wrong command lines: each names the fault and the next step, with status 64. */
import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { exclusive } from "../../support/process.ts";
import { TempDir } from "../../support/temp-dir.ts";

test.each([
  // An option behind NAME: the right order.
  ["run backup --wait -- true", "options go before NAME: exclusive run --wait backup -- true"],
  ["run backup -w true", "options go before NAME: exclusive run -w backup -- true"],
  [
    "run -q backup --timeout 10m -- echo a;b",
    "options go before NAME: exclusive run -q --timeout 10m backup -- echo 'a;b'",
  ],
  ["run backup --wait", "options go before NAME: exclusive run --wait backup -- COMMAND"],
  ["run backup --help", "options go before NAME: exclusive run --help backup -- COMMAND"],
  ["run backup --wiat -- true", "options go before NAME: exclusive run --wiat backup -- true"],
  [
    "run backup --store redis://u:secret@h -- true",
    "options go before NAME: exclusive run --store redis://h backup -- true",
  ],
  // A value for an option that takes none.
  ["run -w 60 echo -- echo hello", "--wait takes no value (did you mean --timeout 60?)"],
  ["run --wait 10m job true", "--wait takes no value (did you mean --timeout 10m?)"],
  ["run --wait=60 job true", "--wait takes no value"],
  // NAME or COMMAND taken for a value.
  ["run --timeout backup -- x", "not a duration: 'backup' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["run --ttl backup -- x", "--ttl is for locks in a store: it needs --store or EXCLUSIVE_STORE"],
  ["run --store redis://h --ttl backup -- x", "not a duration: 'backup' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["run --slots backup -- x", "--slots takes a whole number up to 64, not 'backup'"],
  ["run -E backup -- x", "--conflict-exit-code takes a whole number up to 255, not 'backup'"],
  ["run --if-held backup -- x", "--if-held takes fail, skip, coalesce, latest, replace, not 'backup'"],
  // Something is missing.
  ["run", "missing NAME"],
  ["run --", "missing NAME"],
  ["run backup", "missing COMMAND"],
  ["run backup --", "missing COMMAND"],
  ["run --timeout", "--timeout needs a value: DURATION"],
  ["status", "missing NAME"],
  ["wait", "missing NAME"],
  ["stop", "missing NAME"],
  ["path", "missing NAME"],
  ["held", "missing NAME"],
  // Too much.
  ["status a b", "one NAME at a time"],
  ["stop a b", "one NAME at a time"],
  // Options that exclude each other.
  ["run --ttl 5s job true", "--ttl is for locks in a store: it needs --store or EXCLUSIVE_STORE"],
  ["run --file / --dir /tmp job true", "--dir cannot be combined with --file"],
  ["status --file / --dir /tmp job", "--dir cannot be combined with --file"],
  [
    "run --dir d --store redis://h job true",
    "--dir is for locks in files: it cannot be combined with a store",
  ],
  ["run --slots 2 --shared job true", "slots cannot be combined with file or shared"],
  ["run --exec --close job true", "--close cannot be combined with --exec: no process would have the lock"],
  [
    "run --exec --store redis://h job true",
    "--exec cannot be combined with a store: a wrapper must stay to renew the lease",
  ],
  // What other programs call it.
  ["ls", "unknown command 'ls' (did you mean list?)"],
  ["ps", "unknown command 'ps' (did you mean status?)"],
  ["kill job", "unknown command 'kill' (did you mean stop?)"],
  ["unlock job", "unknown command 'unlock' (did you mean stop?)"],
  ["lock job", "unknown command 'lock' (did you mean run?)"],
  ["version", "unknown command 'version' (did you mean --version?)"],
  ["statsu job", "unknown command 'statsu' (did you mean status?)"],
  ["frobnicate", "unknown command 'frobnicate'"],
  ["help ls", "unknown command 'ls' (did you mean list?)"],
  ["--wait job true", "unknown option '--wait' (options go after the command, as in exclusive run --wait)"],
  // Values.
  ["stop --signal TREM job", "no such signal: 'TREM' (did you mean TERM?)"],
  ["stop --grace soon job", "not a duration: 'soon' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["wait --timeout soon job", "not a duration: 'soon' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["list job", "list takes no NAME: ask exclusive status NAME"],
  ["run --log-format xml job true", "--log-format takes text, json, not 'xml'"],
])("%p: %s", async (line, message) => {
  using dir = new TempDir();
  const { status, stdout, stderr } = await exclusive(line.split(" "), { dir });
  expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
  expect(stderr.split("\n")[0]).toBe(`exclusive: ${message}`);
  expect(dir.list()).toEqual([]);
});

test("an unknown signal far from any other: every one that there is", async () => {
  const { status, stderr } = await exclusive(["stop", "--signal", "FOO", "job"]);
  expect(status).toBe(64);
  expect(stderr).toMatch(/^exclusive: no such signal: 'FOO' \(one of HUP, INT, .*TERM.*, or a number\)\n/);
});

test("doctor of a file: not a directory", async () => {
  using dir = new TempDir();
  writeFileSync(dir.file("f"), "");
  expect(await exclusive(["doctor", dir.file("f")])).toMatchObject({
    status: 64,
    stderr: expect.stringContaining(`exclusive: not a directory: ${dir.file("f")}\n`),
  });
});

test("-- before NAME or COMMAND permits any word", async () => {
  using dir = new TempDir();
  expect(await exclusive(["run", "--wait", "--", "60", "true"], { dir })).toMatchObject({ status: 0 });
  expect(await exclusive(["run", "job", "--", "-no-such"], { dir })).toMatchObject({ status: 127 });
});
