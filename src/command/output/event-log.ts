/** The events of one lock: on stderr, in the log file, and to a hook. Every event of the command is made here. */
import { printable } from "../../errors.ts";
import {
  appendEvent,
  type EventFields,
  type EventName,
  eventLine,
  type LockEvent,
  newEvent,
} from "../../events.ts";
import type { Ending } from "../../os/child-process.ts";
import { write } from "../../os/files.ts";
import { startHook } from "../../os/hook.ts";
import { signalName } from "../../os/signal-name.ts";
import { printError } from "./print.ts";

/** How much is reported, and in which format. */
export interface Verbosity {
  quiet?: boolean | undefined;
  verbose?: boolean | undefined;
  json?: boolean | undefined;
}

/** Where events go besides stderr. */
export interface EventSinks {
  /** Appended to, one line an event. */
  logFile?: string | undefined;
  /** A shell command, started for each event. */
  onEvent?: string | undefined;
  /** The label of the run. */
  label?: string | undefined;
}

/** Events that are the expected course: shown as text with `verbose` only. */
const EXPECTED: ReadonlySet<EventName> = new Set(["acquired", "released", "skipped", "superseded"]);

/**
 * Reports what happens to a lock. On stderr as text: the unexpected, and the rest with `verbose`. As JSON: all of it,
 * one object a line. In the log file and to the hook: all of it, whatever is shown.
 */
export class EventLog {
  readonly #start = performance.now();
  /** The wrapped command, once it has been started. */
  commandPid: number | undefined;

  constructor(
    readonly verbosity: Verbosity,
    readonly name: string,
    private readonly sinks: EventSinks = {},
  ) {}

  /** Seconds since this log began. */
  get elapsed(): number {
    return Math.round(performance.now() - this.#start) / 1000;
  }

  /** Are expected events shown, as text? */
  get isVerbose(): boolean {
    const { quiet, verbose, json } = this.verbosity;
    return verbose === true && !quiet && !json;
  }

  /** Whether events go anywhere but to stderr. */
  get records(): boolean {
    return this.sinks.logFile !== undefined || this.sinks.onEvent !== undefined;
  }

  /** Reports an event, and shows it on stderr. */
  tell<E extends EventName>(event: E, fields: EventFields[E], text: () => string): void {
    const { quiet, verbose, json } = this.verbosity;
    const shown = !quiet && (json || verbose || !EXPECTED.has(event));
    if (!shown && !this.records) return;
    const made = this.#make(event, fields);
    this.#keep(made);
    if (!shown) return;
    if (json) write(2, eventLine(made));
    else printError(text());
  }

  /** Reports an event that is shown otherwise, or not at all. */
  record<E extends EventName>(event: E, fields: EventFields[E]): void {
    if (this.records) this.#keep(this.#make(event, fields));
  }

  #make<E extends EventName>(event: E, fields: EventFields[E]): LockEvent {
    return newEvent(event, this.name, { commandPid: this.commandPid, ...fields }, this.sinks.label);
  }

  #keep(event: LockEvent): void {
    const { logFile, onEvent } = this.sinks;
    if (logFile !== undefined) appendEvent(logFile, event);
    if (onEvent === undefined) return;
    const env = { EXCLUSIVE_EVENT: event.event, EXCLUSIVE_NAME: this.name };
    const failure = startHook(onEvent, eventLine(event).trimEnd(), env);
    if (failure !== undefined)
      printError(`cannot start --on-event ${printable(onEvent)} (${failure}): ${event.event} not reported`);
  }
}

/** The fields of an event for how the command ended. */
export const endingFields = (ending: Ending): { exitCode: number } | { signal: string } =>
  "exited" in ending ? { exitCode: ending.exited } : { signal: signalName(ending.killed) };
