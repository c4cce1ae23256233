/** The wrapped command with all that descends from it: to end every one of them, and to know that they have ended. */
import { startTime } from "../../holder.ts";
import { readDirectory, readText } from "../../os/libc.ts";
import { PinnedProcess } from "../../os/process-handle.ts";
import { isStopped } from "../../os/processes.ts";
import { SIG } from "../../os/signals.ts";

const linux = process.platform === "linux";

/** Variables that this command has, and nobody else: what descends from it has them too, whoever its parent is now. */
export type Mark = Record<string, string>;

/** The processes of a command. */
export class CommandTree {
  /** When each of them started: a pid may be another's by now. */
  readonly #known = new Map<number, string>();
  readonly #marks: string[];

  /**
   * @param pid the command; undefined where its wrapper was killed before it could tell: then its mark tells
   * @param mark what of its environment is its own
   */
  constructor(pid: number | undefined, mark: Mark) {
    this.#marks = Object.entries(mark).map(([key, value]) => `\0${key}=${value}\0`);
    if (pid !== undefined) this.#add(pid);
  }

  /** Those that live. */
  living(): number[] {
    for (const [pid, started] of this.#known) if (startTime(pid) !== started) this.#known.delete(pid);
    const children = childrenByParent();
    const queue = [...this.#known.keys()];
    for (const pids of children.values()) for (const pid of pids) if (this.#isMarked(pid)) queue.push(pid);
    for (let pid = queue.pop(); pid !== undefined; pid = queue.pop()) {
      if (!this.#known.has(pid)) this.#add(pid);
      for (const child of children.get(pid) ?? []) if (!this.#known.has(child)) queue.push(child);
      children.delete(pid);
    }
    return [...this.#known.keys()];
  }

  /** Sends a signal to each of them. Returns how many there were. */
  signal(signal: number): number {
    const pids = this.living();
    for (const pid of pids) {
      using pinned = new PinnedProcess(pid);
      if (startTime(pid) !== this.#known.get(pid)) continue; // it is another's by now
      pinned.send(signal);
      if (signal !== SIG.KILL && isStopped(pid)) pinned.send(SIG.CONT); // else it would get the signal much later
    }
    return pids.length;
  }

  #add(pid: number): void {
    const started = startTime(pid);
    if (started !== undefined) this.#known.set(pid, started);
  }

  #isMarked(pid: number): boolean {
    if (!linux || pid === process.pid) return false;
    const environment = `\0${readText(`/proc/${pid}/environ`) ?? ""}`;
    return this.#marks.every((mark) => environment.includes(mark));
  }
}

function childrenByParent(): Map<number, number[]> {
  const children = new Map<number, number[]>();
  for (const [pid, parent] of linux ? procParents() : psParents()) {
    const siblings = children.get(parent);
    if (siblings === undefined) children.set(parent, [pid]);
    else siblings.push(pid);
  }
  return children;
}

function* procParents(): Generator<[pid: number, parent: number]> {
  const names = readDirectory("/proc");
  if (typeof names === "number") return;
  for (const name of names) {
    const pid = Number(name);
    const stat = pid > 0 ? readText(`/proc/${pid}/stat`) : undefined;
    if (stat !== undefined) yield [pid, Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1])];
  }
}

function* psParents(): Generator<[pid: number, parent: number]> {
  const { stdout } = Bun.spawnSync(["/bin/ps", "-axo", "pid=,ppid="]);
  for (const line of stdout.toString().split("\n")) {
    const [pid, parent] = line.trim().split(/\s+/).map(Number);
    if (pid && parent !== undefined) yield [pid, parent];
  }
}
