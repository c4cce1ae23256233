/** docs/cron.md under a real cron(8), whose time runs fast, with a sendmail that keeps the mails. */
import { expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { canMount } from "./support/namespaces.ts";
import { root } from "./support/paths.ts";
import { hold, Process } from "./support/process.ts";
import { required } from "./support/required.ts";
import { TempDir } from "./support/temp-dir.ts";
import { until } from "./support/until.ts";

const ready = canMount && required("/usr/sbin/cron", "cron") && required("faketime", "faketime");

/** A cron with one crontab, in which a minute takes a second. */
class Cron extends TempDir {
  constructor(lines: string[]) {
    super();
    for (const name of ["spool", "sbin", "empty", "mails", "locks"]) mkdirSync(this.file(name));
    chmodSync(this.file("spool"), 0o700);
    copyFileSync("/usr/sbin/cron", this.file("sbin/cron"));
    this.script("sbin/sendmail", `exec cat >${this.file("mails")}/$$`);
    const path = `PATH=${root}/dist:/usr/bin:/bin\nEXCLUSIVE_DIR=${this.file("locks")}\n`;
    const table = this.file("spool/root");
    writeFileSync(table, `${path}${lines.join("\n").replaceAll("/opt/app", this.path)}\n`, { mode: 0o600 });
    writeFileSync(this.file("none"), "");
  }

  script(name: string, text: string): void {
    writeFileSync(this.file(name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  }

  start(): Process {
    const mounts = `set -e; cd "$0"; mount -t tmpfs none /run; mount -t tmpfs none /dev/shm
      mount --bind spool /var/spool/cron/crontabs
      mount --bind empty /etc/cron.d; mount --bind none /etc/crontab; mount --bind sbin /usr/sbin
      exec faketime -f '+0 x60' /usr/sbin/cron -f`;
    const apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"];
    return new Process([...apart, "sh", "-c", mounts, this.path]);
  }

  get mails(): string[] {
    return readdirSync(this.file("mails")).map((mail) => readFileSync(this.file(`mails/${mail}`), "utf8"));
  }

  /** How often a job has written its line. */
  runs(log: string): number {
    return existsSync(this.file(log)) ? readFileSync(this.file(log), "utf8").split("\n").length - 1 : 0;
  }
}

/** The lines of the page's crontabs that run this script. */
const ofPage = (script: string): string =>
  readFileSync(`${root}/docs/cron.md`, "utf8")
    .split("\n")
    .find((line) => line.endsWith(`/opt/app/${script}`) && line.includes("exclusive run"))!;

test.if(ready)(
  "cron mails nothing for runs that are skipped, and for waits that succeed; for a job that fails, its own words",
  async () => {
    const skip = ofPage("sync.sh");
    expect(skip).toContain("--if-held skip sync");
    const often = (line: string) => line.replace(/^(\S+ +){5}/, "* * * * * ");
    using cron = new Cron([
      often(skip),
      often(ofPage("report.sh")), // waits for the same lock
      often("* * * * * exclusive run other -- /opt/app/fails.sh"),
      "* * * * * echo tick >>/opt/app/ticks",
    ]);
    for (const job of ["sync", "report"]) cron.script(`${job}.sh`, `echo ran >>${cron.file(job)}`);
    cron.script("fails.sh", `echo broken >&2; echo ran >>${cron.file("fails")}; exit 3`);
    await using holder = await hold({ env: { EXCLUSIVE_DIR: cron.file("locks") } }, "sync");
    await using running = cron.start();
    await until(
      () => cron.runs("ticks") >= 12,
      "twelve minutes",
      () => running.stderr,
    );
    expect([cron.runs("sync"), cron.runs("report")]).toEqual([0, 0]);
    holder.kill();
    await until(() => cron.runs("report") >= 10 && cron.runs("sync") > 0, "the waiting reports");
    running.kill("SIGKILL");
    await until(() => cron.mails.every((mail) => mail.includes("\n\n")), "the mails to be whole");
    const bodies = new Set(cron.mails.map((mail) => mail.slice(mail.indexOf("\n\n") + 2)));
    expect([...bodies]).toEqual(["broken\n"]);
    expect(cron.runs("fails")).toBeGreaterThan(0);
  },
);
