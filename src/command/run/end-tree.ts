/** The end of a command whose lock is lost, whose wrapper is gone, or whose time is up. */
import { printable } from "../../errors.ts";
import { clock } from "../../os/clock.ts";
import { SIG } from "../../os/signals.ts";
import type { ProcessTree } from "./process-tree.ts";

const POLL_MS = 20;
/** While only processes are left that we may not signal, which may work on for as long as they like. */
const SLOW_POLL_MS = 250;

/** How the processes of a command ended. */
export interface TreeEnd {
  /** The largest number of processes that were alive at once. */
  most: number;
  /** Those that we were not permitted to signal. */
  refused: Set<number>;
}

export interface EndOptions {
  /** On `clock()`: SIGKILL from then on, and no SIGTERM before it if it has already come. It may be set to earlier. */
  killAt: number;
  /** On `clock()`: not over before, since a first process may still appear. */
  searchUntil?: number;
  /** Called once, as soon as we may not signal one of them: then its end is waited for. */
  onrefused?: (pids: readonly number[]) => void;
}

/** Sends SIGTERM to every process of the command, and then SIGKILL to what is left, step by step. */
export class TreeEnding {
  readonly end: TreeEnd = { most: 0, refused: new Set() };

  constructor(
    private readonly tree: ProcessTree,
    private readonly options: EndOptions,
  ) {}

  /** @returns the milliseconds until the next step; undefined when no process is left */
  step(): number | undefined {
    const { killAt, searchUntil = 0, onrefused } = this.options;
    const now = clock();
    const signal = now >= killAt ? SIG.KILL : this.end.most === 0 ? SIG.TERM : 0;
    const { alive, refused } = this.tree.signal(signal);
    this.end.most = Math.max(this.end.most, alive.length);
    const news = refused.filter((pid) => !this.end.refused.has(pid));
    for (const pid of news) this.end.refused.add(pid);
    if (news.length > 0) onrefused?.(news);
    if (alive.length === 0 && now >= searchUntil) return undefined;
    return alive.length > 0 && refused.length === alive.length ? SLOW_POLL_MS : POLL_MS;
  }
}

/** Ends every process of the command, as `TreeEnding`. Resolves when no process is left. */
export async function endTree(tree: ProcessTree, options: EndOptions): Promise<TreeEnd> {
  const ending = new TreeEnding(tree, options);
  for (let next = ending.step(); next !== undefined; next = ending.step()) await Bun.sleep(next);
  return ending.end;
}

/** The message for processes that may not be signalled. */
export const cannotStop = (name: string, pids: readonly number[]): string =>
  `not permitted to signal pid ${pids.join(", ")} (started by the command of '${printable(name)}'): waiting for it to end`;
