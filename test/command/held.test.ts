import { expect, test } from "bun:test";
import { chmodSync } from "node:fs";
import { binary, library } from "../support/paths.ts";
import { command, exclusive, hold, start } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";

/** Runs a shell script under `run` with these options. */
const under = (dir: TempDir, options: string[], script: string) =>
  exclusive(["run", ...options, "t", "--", "sh", "-c", script.replaceAll("EX", binary)], { dir });

test.each([
  ["", []],
  ["--shared", ["--shared"]],
  ["--keep", ["--keep"]],
  ["--slots", ["--slots", "2"]],
  ["--exec", ["--exec"]],
])("0 for the command of run %s, and for what it starts", async (_, options) => {
  using dir = new TempDir();
  const { stdout } = await under(dir, options, `EX held t; echo $?; sh -c 'setsid EX held t; echo $?'`);
  expect(stdout).toBe("0\n0\n");
});

test("0 with --file and --dir, by the same option", async () => {
  using dir = new TempDir();
  await Bun.write(dir.file("data"), "");
  const file = ["--file", dir.file("data")];
  const asked = `EX held ${file.join(" ")} t; echo $?; EX held t; echo $?`;
  expect(await under(dir, file, asked)).toMatchObject({ stdout: "0\n3\n" });
  const other = `EX held --dir ${dir.path} t; echo $?; EX held --dir /tmp t; echo $?`;
  expect(await under(dir, ["--dir", dir.path], other)).toMatchObject({ stdout: "0\n3\n" });
});

test("3 for a free lock, for another's, for another name, and without the descriptor; a variable proves nothing", async () => {
  using dir = new TempDir();
  await using _holder = await hold(dir, "other");
  const env = { EXCLUSIVE_NAME: "other", EXCLUSIVE_LOCKFILE: dir.lockfile("other") };
  for (const name of ["other", "free"])
    expect(await exclusive(["held", name], { dir, env })).toEqual({
      status: 3,
      signal: null,
      stdout: "",
      stderr: "",
    });
  const closed = `EX held free; echo $?; for fd in /proc/self/fd/*; do n=\${fd##*/}; [ $n -gt 9 ] && eval "exec $n>&-"; done; EX held t; echo $?`;
  const script = ["bash", "-c", closed.replaceAll("EX", binary)];
  expect(await exclusive(["run", "t", "--", ...script], { dir })).toMatchObject({ stdout: "3\n3\n" });
});

test.if(process.platform === "linux")(
  "0 where the lock's file was removed, before it is there again and after; --inherit alike",
  async () => {
    using dir = new TempDir();
    const path = dir.lockfile("t");
    const asked = "EX held t; echo $?; EX run --inherit t -- echo inherited";
    const again = `until [ -e ${path} ]; do sleep 0.02; done`;
    const { stdout } = await under(dir, [], `rm ${path}; ${asked}; ${again}; ${asked}`);
    expect(stdout).toBe("0\ninherited\n".repeat(2));
    const other = `rm ${path}; EX held other; echo $?; ln -s nowhere ${path}; EX held t; echo $?`;
    expect(await under(dir, ["--exec"], other)).toMatchObject({ stdout: "3\n0\n" });
  },
);

test("3 for a daemon that outlives the lock, though its environment names it", async () => {
  using dir = new TempDir();
  const daemon = `(setsid sh -c 'sleep 0.5; EX held t; echo $? >${dir.file("late")}' >/dev/null 2>&1 &)`;
  expect(await under(dir, [], daemon)).toMatchObject({ status: 0 });
  for (let i = 0; i < 500 && !(await Bun.file(dir.file("late")).exists()); i++) await Bun.sleep(10);
  await Bun.sleep(50);
  expect(await Bun.file(dir.file("late")).text()).toBe("3\n");
});

test("the idiom at the top of a script: it runs once, under its lock", async () => {
  using dir = new TempDir();
  const script = dir.file("job.sh");
  await Bun.write(
    script,
    `#!/bin/sh\n${binary} held job || exec ${binary} run job -- "$0" "$@"\necho "ran $1"\n`,
  );
  chmodSync(script, 0o755);
  // A variable that an earlier lock has left changes nothing.
  const env = { EXCLUSIVE_NAME: "job" };
  await using holder = await hold(dir, "job");
  expect(await command([script, "1"], { dir, env })).toMatchObject({ status: 75, stdout: "" });
  holder.kill();
  await holder.result;
  expect(await command([script, "2"], { dir, env })).toMatchObject({ status: 0, stdout: "ran 2\n" });
});

test("--inherit runs under the lock that the caller has, else it takes it", async () => {
  using dir = new TempDir();
  const inner = "EX run --inherit t -- sh -c 'echo in; exit 7'; echo $?";
  for (const options of [[], ["--exec"], ["--slots", "1"]])
    expect(await under(dir, options, inner)).toMatchObject({ stdout: "in\n7\n" });
  expect(await under(dir, [], "EX run --inherit --exec t -- echo in")).toMatchObject({ stdout: "in\n" });
  expect(await exclusive(["run", "--inherit", "t", "--", binary, "held", "t"], { dir })).toMatchObject({
    status: 0,
  });
  // A shared lock is not enough for a run that wants to be alone.
  expect(await under(dir, ["--shared"], inner)).toMatchObject({ stdout: "75\n" });
  expect(await under(dir, ["--shared"], inner.replace("--inherit", "--inherit --shared"))).toMatchObject({
    stdout: "in\n7\n",
  });
  await using _holder = await hold(dir, "t");
  expect(await exclusive(["run", "--inherit", "t", "--", "echo", "no"], { dir })).toMatchObject({
    status: 75,
  });
});

test.each([
  ["run --wait", [], ["run", "--wait", "t", "--", "true"]],
  ["run --timeout", [], ["run", "--timeout", "60", "t", "--", "true"]],
  ["run --if-held coalesce", [], ["run", "--if-held", "coalesce", "t", "--", "true"]],
  ["run --wait, the last slot", ["--slots", "1"], ["run", "--slots", "1", "--wait", "t", "--", "true"]],
  ["run --wait under a shared lock", ["--shared"], ["run", "--wait", "t", "--", "true"]],
  ["run --wait under --exec", ["--exec"], ["run", "--wait", "t", "--", "true"]],
  ["wait", [], ["wait", "t"]],
])("%s inside of the lock is refused at once: 75, and why", async (_, outer, inner) => {
  using dir = new TempDir();
  for (const line of [`EX ${inner.join(" ")}`, `sh -c 'EX ${inner.join(" ")}; exit $?'`]) {
    const { status, stderr } = await under(dir, outer, `${line}; exit $?`);
    expect(status).toBe(75);
    expect(stderr).toMatch(
      /'t' is held by this process' own (parent|ancestor) \(pid \d+\).*: a wait would never end/,
    );
    expect(stderr.includes("use --inherit")).toBe(inner[0] === "run");
  }
});

test("a wait inside of the lock that can end is not refused: another slot, shared with shared", async () => {
  using dir = new TempDir();
  const slot = "EX run --slots 2 --wait t -- echo second";
  expect(await under(dir, ["--slots", "2"], slot)).toMatchObject({ status: 0, stdout: "second\n" });
  const shared = "EX run --shared --wait t -- echo shared";
  expect(await under(dir, ["--shared"], shared)).toMatchObject({ status: 0, stdout: "shared\n" });
});

test("of two commands that each wait for the other's lock one is refused, and the other gets it", async () => {
  using dir = new TempDir();
  const one = (mine: string, other: string) =>
    start(
      [
        "run",
        mine,
        "--",
        "sh",
        "-c",
        `echo begun; until [ -e ${dir.file("go")} ]; do sleep 0.02; done; ${binary} run --wait ${other} -- echo got`,
      ],
      { dir },
    );
  await using a = one("a", "b");
  await using b = one("b", "a");
  await Promise.all([a.says("begun"), b.says("begun")]);
  await Bun.write(dir.file("go"), "");
  const results = await Promise.all([a.result, b.result]);
  expect(results.map(({ status }) => status).sort()).toEqual([0, 75]);
  expect(results.map(({ stderr }) => stderr).join()).toContain("a process that waits for this one");
});

test("a program of the library under the lock: its wait is refused as well", async () => {
  using dir = new TempDir();
  await Bun.write(
    dir.file("program.ts"),
    `import { EndlessWait, Lock } from ${JSON.stringify(library)};
     try { await new Lock({ name: "t" }).acquire({ timeout: "60s" }); } catch (error) { console.log(error instanceof EndlessWait, error.message); }`,
  );
  const { stdout } = await under(dir, [], `${process.execPath} ${dir.file("program.ts")}; true`);
  expect(stdout).toMatch(
    /^true 't' is held by this process' own ancestor \(pid \d+\): a wait would never end\n$/,
  );
});
