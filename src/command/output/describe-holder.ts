/** Human-readable descriptions of a lock's holder. */
import { humanDuration } from "../../duration.ts";
import { printable } from "../../errors.ts";
import { type Holder, heldFor } from "../../holder.ts";
import { commandLine } from "../../os/processes.ts";
import { visiblePid } from "./describe-processes.ts";

/** `'sync' has been running for 59s (pid 1: sh -c 'sleep 100')`; as `describeHeld` where that is not known. */
export function describeRunning(name: string, holder: Holder | undefined): string {
  const held = holder && heldFor(holder);
  if (
    holder === undefined ||
    held === undefined ||
    holder.until !== undefined ||
    holder.left ||
    holder.alive === false
  )
    return describeHeld(name, holder);
  const { pid, label, alive, host } = holder;
  const seen = visiblePid(holder);
  const command = seen === undefined ? undefined : commandLine(seen);
  const where = alive === undefined && host !== undefined ? ` on ${printable(host)}` : "";
  const rest = [label ? `, ${shortened(label)}` : "", command ? `: ${shortened(command)}` : ""].join("");
  return `'${printable(name)}' has been running for ${humanDuration(held)} (pid ${pid}${where}${rest})`;
}

/** `'deploy' is held by pid 4711 for 3m 10s: ./deploy.sh`. */
export function describeHeld(name: string, holder: Holder | undefined): string {
  return `'${printable(name)}' is held${describeHolder(holder)}`;
}

/** ` by pid 4711 for 3m 10s (label): ./deploy.sh`, as far as it is known. */
export function describeHolder(holder: Holder | undefined): string {
  if (holder?.pid === undefined) return " by another process";
  const { pid, commandPid, label, alive, host, left } = holder;
  const living = alive === false && commandPid !== undefined ? commandPid : pid;
  const held = heldFor(holder);
  const since = held === undefined ? "" : ` for ${humanDuration(held)}`;
  const where = alive === undefined && host !== undefined ? ` on ${printable(host)}` : "";
  const seen = visiblePid(holder);
  const command =
    holder.until !== undefined
      ? untilInWords(holder.until)
      : seen === undefined
        ? undefined
        : commandLine(seen);
  const process =
    alive === false && commandPid === undefined
      ? `another process (pid ${pid}, which took it, is gone)`
      : `pid ${living}${left ? " (left by its command)" : ""}`;
  return ` by ${process}${where}${since}${label ? ` (${shortened(label)})` : ""}${command ? `: ${shortened(command)}` : ""}`;
}

/** `kept until 2026-03-01 08:00:00`, by the local clock; any other text as it is: a record may be forged. */
export function untilInWords(until: string): string {
  const time = new Date(until);
  if (Number.isNaN(time.getTime())) return `kept until ${until}`;
  const local = new Date(time.getTime() - time.getTimezoneOffset() * 60_000);
  return `kept until ${local.toISOString().slice(0, 19).replace("T", " ")}`;
}

/** Cuts text to this many columns, with an ellipsis. */
export function cut(text: string, width = Number.POSITIVE_INFINITY): string {
  if (width <= 0) return "";
  return Bun.stringWidth(text) <= width ? text : `${Bun.sliceAnsi(text, 0, width - 1)}…`;
}

const COMMAND_LINE_MAX = 120;

/** Makes text of unknown origin and length fit for one line. */
export function shortened(text: string): string {
  const line = printable(text);
  return line.length > COMMAND_LINE_MAX ? `${line.slice(0, COMMAND_LINE_MAX)}…` : line;
}
