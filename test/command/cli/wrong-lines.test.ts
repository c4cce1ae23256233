/** Wrong command lines, more than 90: each names the fault and the next step, with status 64. */
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
  ["run --slots backup -- x", "--slots takes a whole number from 1 to 64, not 'backup'"],
  ["run -E backup -- x", "--conflict-exit-code takes a whole number from 0 to 255, not 'backup'"],
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
  ["run --slots 2 --shared job true", "--slots cannot be combined with --file or --shared"],
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
  ["list job", "list takes no NAME (did you mean exclusive status NAME?)"],
  ["run --log-format xml job true", "--log-format takes text, json, not 'xml'"],
  // And more of each kind.
  ["run --no-wait job true", "unknown option --no-wait"],
  ["run --waitt job true", "unknown option --waitt (did you mean --wait?)"],
  // What flock(1) has.
  ["run -x job true", "unknown option -x (without --shared the lock is exclusive)"],
  ["run -n job true", "unknown option -n (without --wait it does not wait)"],
  ["run -F job true", "unknown option -F (did you mean --exec?)"],
  ["run -c ./x job", "unknown option -c (a shell script is a COMMAND: -- sh -c SCRIPT)"],
  ["run -w job -c ./x;y", "a shell script is a COMMAND: exclusive run -w job -- sh -c './x;y'"],
  ["run -wt job true", "not a duration: 'job' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["run --timeout= job true", "not a duration: '' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["run --timeout -5 job true", "not a duration: '-5' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["run --timeout 5x job true", "not a duration: '5x' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["run --timeout 1h30 job true", "not a duration: '1h30' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["run --max-runtime forever job true", "not a duration: 'forever' (examples: 500ms, 30s, 5m, 1h30m)"],
  [
    "run --max-runtime 1h --exec job true",
    "--max-runtime cannot be combined with --exec: no process would be left to stop it",
  ],
  ["run --max-runtime 0 job true", "--max-runtime takes a duration longer than 0, such as 2h"],
  ["run --kill-after 5s job true", "--kill-after needs --max-runtime"],
  [
    "run --hold-for 1m --exec job true",
    "--hold-for cannot be combined with --exec: no process would be left to start the keeper",
  ],
  ["run --overdue 1h job true", "--overdue needs --if-held skip, coalesce or latest"],
  ["run --overdue soon --if-held skip job true", "not a duration: 'soon' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["run --if-held wait job true", "--if-held takes fail, skip, coalesce, latest, replace, not 'wait'"],
  [
    "run --if-held skpi job true",
    "--if-held takes fail, skip, coalesce, latest, replace, not 'skpi' (did you mean skip?)",
  ],
  ["run --if-held coalesce --file / job true", "--if-held coalesce cannot be combined with --file"],
  ["run --if-held replace --slots 2 job true", "--if-held replace cannot be combined with --slots"],
  ["run --slots 0 job true", "--slots takes a whole number from 1 to 64, not '0'"],
  ["run --slots 65 job true", "--slots takes a whole number from 1 to 64, not '65'"],
  ["run --slots 2 --file / job true", "--slots cannot be combined with --file or --shared"],
  ["run -E 256 job true", "--conflict-exit-code takes a whole number from 0 to 255, not '256'"],
  ["run -E -1 job true", "--conflict-exit-code takes a whole number from 0 to 255, not '-1'"],
  ["run --log-file= job true", "--log-file needs the path of a file, not an empty text"],
  ["run --store= job true", "--store must not be empty (is a variable unset?)"],
  ["list --store=", "--store must not be empty (is a variable unset?)"],
  ["run --store-file /dev/null job true", "--store-file /dev/null is empty: it must have the URL"],
  ["run --store foo job true", "a store is a URL such as redis://HOST:6379"],
  [
    "run --store ldap://h job true",
    "unsupported store 'ldap' (supported: file, postgres, postgresql, mysql, mariadb, redis, rediss, etcd, etcds)",
  ],
  ["run --store redis://h --store-file f job true", "--store cannot be combined with --store-file"],
  ["run --store-file none job true", "cannot read --store-file none"],
  ["run --store redis://h --ttl 100ms job true", "ttl must be from 1s to 1d"],
  ["run --store redis://h/x job true", "redis://h/x: a database of Redis is a number"],
  ["run --store mysql://h job true", "mysql://h has no database: mysql://USER:PASSWORD@HOST/DATABASE"],
  ["run --dir= job true", "dir must not be empty (is a variable unset?)"],
  ["run --file= job true", "file must not be empty (is a variable unset?)"],
  [
    "run --keep --store redis://h job true",
    "--keep is for locks in files: it cannot be combined with a store",
  ],
  ["run --quiet=yes job true", "--quiet takes no value"],
  ["run -q=1 job true", "-q takes no value"],
  ["run --label job true", "missing COMMAND"],
  ["status --wait job", "unknown option --wait"],
  ["status -w job", "unknown option -w"],
  [
    "status --dir /x --store redis://h job",
    "--dir is for locks in files: it cannot be combined with a store",
  ],
  ["list -l", "unknown option -l"],
  ["list --watch=1", "--watch takes no value"],
  ["list --overdue long", "not a duration: 'long' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["list --file /x", "unknown option --file"],
  ["wait job 10m", "one NAME at a time (did you mean --timeout 10m?)"],
  ["wait -t job", "missing NAME"],
  ["hold", "missing NAME"],
  ["hold job -- sleep 5", "hold takes NAME alone (did you mean exclusive run job sleep 5?)"],
  ["hold job 2h", "hold takes NAME alone (did you mean --for 2h?)"],
  ["hold --for 0 job", "--for takes a duration longer than 0, such as 2h"],
  ["hold --for ever job", "not a duration: 'ever' (examples: 500ms, 30s, 5m, 1h30m)"],
  ["stop --signal job", "missing NAME"],
  ["stop -9 job", "unknown option -9 (did you mean --signal 9?)"],
  ["stop -15 job", "unknown option -1 (did you mean --signal 15?)"],
  ["stop -KILL job", "unknown option -K (did you mean --signal KILL?)"],
  ["held --quiet job", "unknown option --quiet"],
  ["held a b", "one NAME at a time"],
  ["history --last ten --log-file f", "--last takes a whole number, not 'ten'"],
  ["history --json --prometheus --log-file f", "--json cannot be combined with --prometheus"],
  ["history", "missing log file: use --log-file FILE or EXCLUSIVE_LOG_FILE, here and for run"],
  ["history a b --log-file f", "one NAME at a time"],
  ["path a b", "one NAME at a time"],
  ["path --file x a", "unknown option --file"],
  ["doctor a b", "one directory at a time"],
  ["doctor /tmp --store redis://h", "DIR cannot be combined with --store"],
  ["doctor --store nope", "a store is a URL such as redis://HOST:6379"],
  ["completion", "completion takes bash, zsh or fish"],
  ["completion tcsh", "completion takes bash, zsh or fish"],
  ["completion bahs", "completion takes bash, zsh or fish (did you mean bash?)"],
  ["help frob", "unknown command 'frob'"],
  ["help --al run", "unknown option --al (did you mean --all?)"],
  ["man run", "man takes no operand: there is one page for all commands"],
  ["-w job true", "unknown option '-w' (options go after the command, as in exclusive run --wait)"],
  ["--versoin", "unknown option '--versoin' (did you mean --version?)"],
  ["runn job true", "unknown command 'runn' (did you mean run?)"],
  ["Run job true", "unknown command 'Run' (did you mean run?)"],
  ["locks", "unknown command 'locks' (did you mean list?)"],
  ["top", "unknown command 'top' (did you mean list --watch?)"],
  ["exec job true", "unknown command 'exec' (did you mean run?)"],
  ["free job", "unknown command 'free' (did you mean stop?)"],
  ["logs", "unknown command 'logs' (did you mean history?)"],
  ["restart job", "unknown command 'restart'"],
  ["job -- true", "unknown command 'job' (did you mean exclusive run job -- true?)"],
])("%p: %s", async (line, message) => {
  using dir = new TempDir();
  const { status, stdout, stderr } = await exclusive(line.split(" "), { dir });
  expect({ status, stdout }).toEqual({ status: 64, stdout: "" });
  expect(stderr.split("\n")[0]).toBe(`exclusive: ${message}`);
  expect(dir.list()).toEqual([]);
});

test.each(["FOO", "37.5", "0x25", "4e1", "RTMIN+99"])(
  "%s is no signal: every one that there is",
  async (text) => {
    const { status, stderr } = await exclusive(["stop", "--signal", text, "job"]);
    expect(status).toBe(64);
    const rest = stderr.replace(`exclusive: no such signal: '${text}' `, "");
    expect(rest).toMatch(/^\(one of HUP, INT, .*TERM.*, or a number\)\n/);
  },
);

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
