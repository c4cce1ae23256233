/** The events of one `Lock`, in its log file. */
import { CannotAcquireLock, LockFileError, StoreError, Superseded } from "./errors.ts";
import { appendEvent, type EventFields, type EventName, newEvent } from "./events.ts";
import { whenReleasedAtExit } from "./store/own-holds.ts";
import type { Lease, Request } from "./store/store.ts";

const seconds = (since: number): number => Math.round(performance.now() - since) / 1000;

/** Records what happens to a lock. A release at the exit of the program is recorded too. */
export class LockRecord {
  #begun = 0;
  #waited = 0;
  #held: number | undefined;

  constructor(
    private readonly file: string,
    private readonly request: Request,
  ) {}

  /** The attempt to acquire the lock begins. */
  begin(): void {
    this.#begun = performance.now();
  }

  acquired(lease: Lease): void {
    this.#waited = seconds(this.#begun);
    this.#held = performance.now();
    const token = lease.token === undefined ? undefined : String(lease.token);
    this.#append("acquired", { waitSeconds: this.#waited, lockfile: lease.location, token });
    whenReleasedAtExit(lease, () => this.released());
    const { lost } = lease;
    lost?.addEventListener("abort", () => this.#end("lost", (lost.reason as Error).message));
  }

  refused(error: unknown): void {
    const failed = error instanceof StoreError || error instanceof LockFileError;
    if (!failed && !(error instanceof CannotAcquireLock)) return;
    const event = error instanceof Superseded ? "superseded" : "refused";
    const why = failed ? { reason: error.message } : { holder: error.holder };
    this.#append(event, { waitSeconds: seconds(this.#begun), ...why });
  }

  released(): void {
    this.#end("released");
  }

  /** A lock that was lost is not released as well. */
  #end(event: "released" | "lost", reason?: string): void {
    if (this.#held === undefined) return;
    const holdSeconds = seconds(this.#held);
    this.#held = undefined;
    this.#append(event, { waitSeconds: this.#waited, holdSeconds, reason });
  }

  #append<E extends EventName>(event: E, fields: EventFields[E]): void {
    appendEvent(this.file, newEvent(event, this.request.name, fields, this.request.label));
  }
}
