/** The events of one lock, on stderr. */
import { write } from "../../os/files.ts";
import { jsonLine, printError } from "./print.ts";

/** An event, as `--log-format json` names it. */
export type LockEvent =
  | ("waiting" | "acquired" | "refused" | "skipped" | "stopped" | "released" | "lost")
  | ("retaken" | "split");

/** Events that are no news: they are shown with `verbose` alone, so that a job under cron sends no mail for them. */
const ORDINARY = new Set<LockEvent>(["acquired", "skipped", "released"]);

/** How much is reported, and in which format. */
export interface Verbosity {
  quiet?: boolean | undefined;
  verbose?: boolean | undefined;
  json?: boolean | undefined;
}

/**
 * Reports what happens to a lock. As text: the unexpected, and the rest with `verbose`. As JSON: all of it, one object
 * a line with `time` (ISO 8601), `event`, `name`, and durations in seconds.
 */
export class EventLog {
  readonly #start = performance.now();

  constructor(
    readonly verbosity: Verbosity,
    readonly name: string,
  ) {}

  /** Seconds since this log began. */
  get elapsed(): number {
    return Math.round(performance.now() - this.#start) / 1000;
  }

  /** Are ordinary events reported, as text? */
  get isVerbose(): boolean {
    const { quiet, verbose, json } = this.verbosity;
    return verbose === true && !quiet && !json;
  }

  tell(event: LockEvent, details: Record<string, unknown>, text: () => string): void {
    const { quiet, verbose, json } = this.verbosity;
    if (quiet) return;
    if (json) {
      write(2, `${jsonLine({ time: new Date().toISOString(), event, name: this.name, ...details })}\n`);
    } else if (verbose || !ORDINARY.has(event)) {
      printError(text());
    }
  }
}
