/** Runs, put together from the events of a log file. */
import type { ReadEvent } from "./read-events.ts";

/** How a run ended. `released`: a lock of the library, where nothing tells whether the work succeeded. */
export const RESULTS = ["succeeded", "failed", "overran", "lost", "released"] as const;
export type Result = (typeof RESULTS)[number];

/** Events of runs that did not get the lock. */
export const TURNED_AWAY = ["skipped", "refused", "superseded", "overdue"] as const;
type TurnedAway = (typeof TURNED_AWAY)[number];

/** One run: from when the lock was acquired. */
export interface Run {
  pid: number;
  /** ISO 8601. */
  started: string;
  /** ISO 8601; undefined while it runs, and where its end is not in the file. */
  ended?: string | undefined;
  result?: Result | undefined;
  waitSeconds?: number | undefined;
  holdSeconds?: number | undefined;
  exitCode?: number | undefined;
  signal?: string | undefined;
  label?: string | undefined;
  token?: string | undefined;
  reason?: string | undefined;
  /** Processes of the command kept the lock after its end. */
  orphaned?: true | undefined;
  /** The lock file was deleted or replaced while the lock was held. */
  split?: true | undefined;
}

/** The events of one lock. */
export class LockHistory {
  /** The last runs, oldest first. */
  readonly runs: Run[] = [];
  readonly results: Record<Result, number> = { succeeded: 0, failed: 0, overran: 0, lost: 0, released: 0 };
  readonly turnedAway: Record<TurnedAway, number> = { skipped: 0, refused: 0, superseded: 0, overdue: 0 };
  /** Since the last success, or since the file begins. */
  sinceSuccess: Record<TurnedAway | "failed", number> = noneSinceSuccess();
  heldSeconds = 0;
  lastRun: Run | undefined;
  /** The run that ended last. */
  lastEnded: Run | undefined;
  lastSuccess: Run | undefined;
  /** Runs without an end, by pid. */
  readonly #open = new Map<number, Run[]>();
  /** The run that ended last with `orphaned`: `released` may still follow. */
  #orphaned: Run | undefined;

  constructor(
    readonly name: string,
    /** When the first event happened. */
    readonly since: string | undefined,
    private readonly last: number,
  ) {}

  add(event: ReadEvent): void {
    switch (event.event) {
      case "acquired":
        this.#begin({ ...fieldsOf(event), pid: event.pid, started: event.time });
        break;
      case "released":
      case "lost":
      case "orphaned":
      case "overran":
      case "split":
        this.#update(event);
        break;
      case "skipped":
      case "refused":
      case "superseded":
      case "overdue":
        this.turnedAway[event.event]++;
        this.sinceSuccess[event.event]++;
    }
  }

  #begin(run: Run): void {
    this.lastRun = run;
    this.runs.push(run);
    if (this.runs.length > this.last) this.runs.shift();
    const open = this.#open.get(run.pid);
    if (open === undefined) this.#open.set(run.pid, [run]);
    else open.push(run);
  }

  /** An event of a run that has begun: its last, or one before. */
  #update(event: ReadEvent): void {
    const fields = fieldsOf(event);
    const orphaned = this.#orphaned;
    if (event.event === "released" && orphaned?.pid === event.pid && !this.#open.has(event.pid)) {
      this.#orphaned = undefined;
      Object.assign(orphaned, fields);
      return;
    }
    const run = this.#find(event, fields.holdSeconds ?? 0);
    Object.assign(run, fields);
    if (event.event === "orphaned") run.orphaned = true;
    if (event.event === "split") run.split = true;
    if (event.event === "overran") run.result = "overran";
    if (event.event === "overran" || event.event === "split") return;
    this.#end(run, event);
  }

  #end(run: Run, event: ReadEvent): void {
    this.#close(run);
    if (event.event === "orphaned") this.#orphaned = run;
    run.ended = event.time;
    run.result = event.event === "lost" ? "lost" : (run.result ?? resultOf(run));
    this.results[run.result]++;
    this.heldSeconds += run.holdSeconds ?? 0;
    this.lastEnded = run;
    if (run.result === "succeeded") {
      this.lastSuccess = run;
      this.sinceSuccess = noneSinceSuccess();
    } else if (run.result !== "released") this.sinceSuccess.failed++;
  }

  /**
   * The run that an event belongs to. One process of the library may hold several slots, and in two containers pids may
   * be equal: the run is the one that started nearest to when this one did. Its start may be in an older file.
   */
  #find({ pid, time }: ReadEvent, holdSeconds: number): Run {
    const started = Date.parse(time) - holdSeconds * 1000;
    const distance = (run: Run) => Math.abs(Date.parse(run.started) - started);
    const [nearest] = (this.#open.get(pid) ?? []).toSorted((a, b) => distance(a) - distance(b));
    if (nearest !== undefined) return nearest;
    const run = { pid, started: new Date(started).toISOString() };
    this.#begin(run);
    return run;
  }

  #close(run: Run): void {
    const left = this.#open.get(run.pid)!.filter((other) => other !== run);
    if (left.length === 0) this.#open.delete(run.pid);
    else this.#open.set(run.pid, left);
  }

  /** What `--json` prints. */
  toJSON(withRuns: boolean) {
    const { name, since, lastRun, lastEnded, lastSuccess, results, sinceSuccess } = this;
    return {
      name,
      since,
      lastRun: lastRun?.started,
      lastSuccess: lastSuccess?.ended,
      exitCode: lastEnded?.exitCode,
      signal: lastEnded?.signal,
      holdSeconds: Number(this.heldSeconds.toFixed(3)),
      runs: results,
      ...this.turnedAway,
      sinceSuccess,
      ...(withRuns && { last: this.runs }),
    };
  }
}

const noneSinceSuccess = () => ({ failed: 0, skipped: 0, refused: 0, superseded: 0, overdue: 0 });

function resultOf({ exitCode, signal }: Run): Result {
  if (exitCode === 0) return "succeeded";
  return exitCode === undefined && signal === undefined ? "released" : "failed";
}

/** The fields of a run that have the type they should have. */
function fieldsOf(event: ReadEvent): Partial<Run> {
  const fields: Partial<Run> = {};
  for (const key of ["waitSeconds", "holdSeconds", "exitCode"] as const) {
    const value = event[key];
    if (typeof value === "number" && Number.isFinite(value)) fields[key] = value;
  }
  for (const key of ["signal", "label", "token", "reason"] as const) {
    const value = event[key];
    if (typeof value === "string") fields[key] = value;
  }
  return fields;
}

/** The histories of all locks of a file, or of one. */
export class Histories {
  readonly #all = new Map<string, LockHistory>();

  /**
   * @param last how many runs to keep
   * @param only the lock whose events count
   */
  constructor(
    private readonly last: number,
    private readonly only: string | undefined,
  ) {}

  add(event: ReadEvent): void {
    if (this.only !== undefined && event.name !== this.only) return;
    this.of(event.name, event.time).add(event);
  }

  of(name: string, since?: string): LockHistory {
    const found = this.#all.get(name) ?? new LockHistory(name, since, this.last);
    this.#all.set(name, found);
    return found;
  }

  /** Sorted by name. */
  all(): LockHistory[] {
    return [...this.#all.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }
}
