/**
 * `--max-runtime`: the end of a command that runs too long. A hung command would keep the lock, and with
 * `--if-held skip` no run would come after it, without a word.
 */
import { limitInWords } from "../../duration.ts";
import { printable } from "../../errors.ts";
import type { EventFields } from "../../events.ts";
import { type Ending, reapOthers } from "../../os/child-process.ts";
import { clock } from "../../os/clock.ts";
import { nextSignal, SIG } from "../../os/signals.ts";
import type { EventLog } from "../output/event-log.ts";
import { printError } from "../output/print.ts";
import { cannotStop, TreeEnding } from "./end-tree.ts";
import { ProcessTree } from "./process-tree.ts";
import { supervise } from "./supervise.ts";

/** How long a command may run, in milliseconds. */
export interface RunLimit {
  runtime: number;
  /** From SIGTERM to SIGKILL. */
  killAfter: number;
}

/** Reports that the command is being stopped. */
export function tellOverran(log: EventLog, { runtime }: RunLimit, details: EventFields["overran"]): void {
  const limit = limitInWords(runtime);
  log.tell("overran", details, () => `'${printable(log.name)}' ran longer than ${limit}: stopping it`);
}

/** How often the clock is looked at: timers of the event loop do not count the time that the machine sleeps. */
const LOOK_MS = 1000;

/** Calls this function when the time is over, on the event loop. */
export function whenOver(milliseconds: number, over: () => void): Disposable {
  const overAt = clock() + milliseconds;
  let timer: Timer | undefined;
  const look = () => {
    const left = overAt - clock();
    if (left <= 0) over();
    else timer = setTimeout(look, Math.min(Math.ceil(left), LOOK_MS));
  };
  look();
  return { [Symbol.dispose]: () => clearTimeout(timer) };
}

/** What `superviseFor` watches besides the command. */
interface Watch {
  seen?: Set<number>;
  meanwhile?: () => void;
  /** Those that have an open file of the command. */
  heirs?: () => number[];
  /** Processes that are not of the command. */
  except?: readonly number[];
  /** The fields of the event. */
  details?: () => EventFields["overran"];
}

/** How the command ended, and whether that was because it ran too long. */
export interface Supervised {
  ending: Ending;
  overran: boolean;
}

/**
 * Waits for the command's end, as `supervise`. One that runs longer than the limit is stopped with all that it has started:
 * no process of it is left then.
 */
export function superviseFor(
  pid: number,
  limit: RunLimit | undefined,
  log: EventLog,
  { seen, meanwhile, heirs, except = [], details }: Watch,
): Supervised {
  if (limit === undefined) {
    const ending = supervise(pid, seen, () => {
      meanwhile?.();
      return undefined;
    });
    return { ending, overran: false };
  }
  const began = clock();
  const overAt = began + limit.runtime;
  const tree = new ProcessTree({ command: pid, wrapper: process.pid, except, ...(heirs && { heirs }) });
  let stopping: TreeEnding | undefined;
  const step = () => {
    meanwhile?.();
    const now = clock();
    if (stopping === undefined && now < overAt) return overAt - now;
    if (stopping === undefined) {
      tellOverran(log, limit, details?.() ?? { holdSeconds: Math.round(now - began) / 1000 });
      const onrefused = (pids: readonly number[]) => printError(cannotStop(log.name, pids));
      stopping = new TreeEnding(tree, { killAt: now + limit.killAfter, onrefused });
    }
    return stopping.step();
  };
  const ending = supervise(pid, seen, step);
  if (stopping !== undefined) finish(stopping, tree);
  return { ending, overran: stopping !== undefined };
}

/** Ends what is left when the command itself has ended. */
function finish(stopping: TreeEnding, tree: ProcessTree): void {
  for (let next = stopping.step(); next !== undefined; next = stopping.step()) {
    const signal = nextSignal(next)?.signal;
    reapOthers(0);
    if (signal !== undefined && signal !== SIG.CHLD) tree.signal(signal);
  }
}
