/** What `exclusive run` is to do: its command line, read and checked. */
import type { FileStoreOptions } from "../../store/file/lock-file.ts";
import type { Request } from "../../store/store.ts";
import type { Verbosity } from "../output/event-log.ts";
import type { RunLimit } from "./max-runtime.ts";

/** A store that is not a directory of this machine. */
export interface RemoteStore {
  url: string;
  /** In milliseconds. */
  ttl: number | undefined;
}

export interface RunPlan {
  /** The command and its arguments. */
  argv: string[];
  request: Request;
  store: FileStoreOptions | RemoteStore;
  /** Become the command, instead of waiting for its end. */
  exec: boolean;
  /** The command does not inherit the lock's descriptor. */
  close: boolean;
  /** Run under the lock that this process has inherited, where it has. */
  inherit: boolean;
  /** What to do when the lock is held. */
  policy: "fail" | "skip" | "coalesce" | "latest" | "replace";
  /** Wait for a held lock, without a limit other than `timeout`. */
  wait: boolean;
  /** Wait at most this long, in milliseconds from the start of the program. */
  timeout: number | undefined;
  /** A command that runs longer is stopped. */
  limit?: RunLimit | undefined;
  /** The lock is kept for so many milliseconds after it was taken, however soon the command ends. */
  holdFor?: number | undefined;
  /** A holder that has had the lock for so many milliseconds is reported, instead of being silent. */
  overdue?: number | undefined;
  /** The exit status where the lock is held. */
  conflictStatus: number;
  verbosity: Verbosity;
  /** Where events are appended. */
  logFile?: string | undefined;
  /** A shell command, started at each event. */
  onEvent?: string | undefined;
}
