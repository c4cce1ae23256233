/** How a lock and its holder are told to people. */
import { printable } from "../errors.ts";
import type { Holder } from "../holder.ts";
import { readText } from "../store/kernel.ts";
import { spoken } from "./say.ts";

/** `'deploy' is held by pid 4711 since 3m 10s: ./deploy.sh`. */
export function heldBy(name: string, holder: Holder | undefined): string {
  return `'${printable(name)}' is held${byWhom(holder)}`;
}

/** ` by pid 4711 for 3m 10s (label): ./deploy.sh`, as much of it as is known. */
export function byWhom(holder: Holder | undefined): string {
  if (holder?.pid === undefined) return " by another process";
  const { pid, commandPid, acquiredAt, label, alive, host } = holder;
  const living = alive === false && commandPid !== undefined ? commandPid : pid;
  const since = acquiredAt ? ` for ${spoken(Date.now() - acquiredAt.getTime())}` : "";
  const where = alive === undefined && host !== undefined ? ` on ${printable(host)}` : "";
  const command = alive === undefined ? undefined : commandLine(commandPid ?? pid);
  return ` by pid ${living}${where}${since}${label ? ` (${printable(label)})` : ""}${command ? `: ${command}` : ""}`;
}

const COMMAND_LINE_MAX = 120;

/** The command line of a process, asked of the OS now; undefined when it does not say. */
export function commandLine(pid: number): string | undefined {
  const raw = readText(`/proc/${pid}/cmdline`) ?? (process.platform === "linux" ? undefined : askPs(pid));
  if (!raw) return undefined;
  const line = printable(raw.replace(/\0$/, "").replaceAll("\0", " "));
  return line.length > COMMAND_LINE_MAX ? `${line.slice(0, COMMAND_LINE_MAX)}…` : line;
}

function askPs(pid: number): string {
  return Bun.spawnSync(["/bin/ps", "-o", "args=", "-p", String(pid)])
    .stdout.toString()
    .trim();
}
