/** The options of systemd's sandbox that docs/systemd.md names, as the mounts that systemd.exec(5) makes of them. */

import { describe, expect, test } from "bun:test";
import { chmodSync } from "node:fs";
import { basename, dirname } from "node:path";
import { canMount } from "../support/namespaces.ts";
import { binary } from "../support/paths.ts";
import { exclusive, hold, Process } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";

/** ProtectSystem=strict: all but /dev, /proc and /sys is read-only. */
const STRICT = `mount --make-rprivate / && mount --bind / /
  while read -r _ at _; do
    case $at in /dev*|/proc*|/sys*) ;; *) mount -o remount,bind,ro "$at" 2>/dev/null ;; esac
  done </proc/mounts
  touch /var/lock/probe 2>/dev/null && exit 99`;
/** ReadWritePaths= */
const writable = (path: string) => `mount --bind '${path}' '${path}' && mount -o remount,bind,rw '${path}'`;
/** PrivateTmp=yes. The program may be below /tmp itself: it is at /mnt as well. */
const PRIVATE_TMP = `mount --make-rprivate / && mount --bind '${dirname(binary)}' /mnt
  mount -t tmpfs -o mode=1777 none /tmp`;

/** Starts a line of a unit under these mounts. */
const unit = (mounts: string, line: string, dir?: TempDir) =>
  new Process(["unshare", "--mount", "sh", "-c", `${mounts}\nexec ${line}`], {
    env: { EXCLUSIVE_DIR: dir?.path },
  });

describe.if(canMount)("a unit", () => {
  const name = `sandbox-${crypto.randomUUID()}`;
  const run = `'${binary}' run ${name}`;

  test("with ProtectSystem=strict: 73 and what to do, rather than a lock in another place", async () => {
    await using refused = unit(STRICT, `${run} -- echo ran`);
    const { status, stdout, stderr } = await refused.result;
    expect({ status, stdout }).toEqual({ status: 73, stdout: "" });
    expect(stderr).toContain("permit writing there, or use another directory (EXCLUSIVE_DIR names one)");
  });

  test("with ReadWritePaths= and EXCLUSIVE_DIR besides: it excludes those outside, and they exclude it", async () => {
    using dir = new TempDir();
    chmodSync(dir.path, 0o1777);
    const mounts = `${STRICT}\n${writable(dir.path)}`;
    {
      await using _holder = await hold(dir, name);
      await using refused = unit(mounts, `${run} -- true`, dir);
      expect(await refused.result).toMatchObject({ status: 75 });
    }
    await using inside = unit(mounts, `${run} -- sh -c 'echo begun; exec sleep 600'`, dir);
    await inside.says("begun");
    expect(await exclusive(["run", name, "--", "true"], { dir })).toMatchObject({ status: 75 });
    expect(await exclusive(["stop", name], { dir })).toMatchObject({ status: 0 });
    await inside.result;
  });

  test("with PrivateTmp=yes: the default directory stays /var/lock, where that is for everybody", async () => {
    const outside = await exclusive(["path", "-v", name], { env: { EXCLUSIVE_DIR: undefined } });
    await using inside = unit(PRIVATE_TMP, `/mnt/${basename(binary)} path -v ${name}`);
    expect(await inside.result).toEqual(outside);
  });
});
