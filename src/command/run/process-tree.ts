/** The processes of the wrapped command: to signal every one of them, and to see that they have ended. */
import { ProcessHandle } from "../../os/process-handle.ts";
import { childrenByParent, hasVariables, isStopped, startTime } from "../../os/processes.ts";
import { SIG } from "../../os/signals.ts";

/** Environment variables unique to this run. Descendants inherit them, so they identify orphaned children too. */
export type Mark = Record<string, string>;

/** The processes of a command. */
export class CommandTree {
  /** Start times by pid: a pid may have been given to another process since. */
  readonly #known = new Map<number, string>();
  readonly #marks: string[];

  /**
   * @param pid the command; undefined where its wrapper was killed before it reported one: then the mark finds it
   * @param mark variables of the command's environment
   */
  constructor(pid: number | undefined, mark: Mark) {
    this.#marks = Object.entries(mark).map(([key, value]) => `${key}=${value}`);
    if (pid !== undefined) this.#add(pid);
  }

  /** The pids of the processes that live. */
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

  /** Sends a signal to each of them. Returns their number. */
  signal(signal: number): number {
    const pids = this.living();
    for (const pid of pids) {
      using handle = new ProcessHandle(pid);
      if (startTime(pid) !== this.#known.get(pid)) continue; // another process has the pid now
      handle.send(signal);
      if (signal !== SIG.KILL && isStopped(pid)) handle.send(SIG.CONT); // a stopped process takes the signal much later
    }
    return pids.length;
  }

  #add(pid: number): void {
    const started = startTime(pid);
    if (started !== undefined) this.#known.set(pid, started);
  }

  #isMarked(pid: number): boolean {
    return pid !== process.pid && hasVariables(pid, this.#marks);
  }
}
