/** What the wrapper and its guardian tell each other: JSON, one message a line, over two pipes. See `with-lease.ts`. */
import type { Mode } from "../../holder.ts";
import type { Mark } from "./process-tree.ts";

/** Internal sub-command: starts the guardian process. */
export const GUARDIAN = "--guardian";

/** Internal sub-command: starts a keeper, see `store-keeper.ts`. */
export const STORE_KEEPER = "--store-keeper";

/** What to guard. It comes through the pipe, since other users can read argv. */
export interface Order {
  url: string;
  ttl: number;
  name: string;
  mode: Mode;
  label?: string | undefined;
  /** Identifies the processes of the command. */
  mark: Mark;
  /** Pid of the wrapper. */
  wrapper: number;
}

/** From the wrapper. The order comes first, and once. */
export type ToGuardian =
  | { order: Order }
  /** Until when the main lock is proven to be held, on `clock()`. */
  | { deadline: number }
  /** The command is about to be started, and from now on may exist. It inherits this marker: see os/marker.ts. */
  | { starting: true; marker: string | undefined }
  /** The pid of the command. */
  | { command: number }
  /** The wrapper itself is stopping the command. */
  | { stopping: true }
  /** No process of the command is left. */
  | { done: true }
  /** The same; but the lock is to be kept up to this time on `clock()`, which is `until`. */
  | { keep: number; until: string };

/**
 * From the guardian, about the second hold: until when it is proven to be ours; that another run holds it; that it is lost,
 * was not acquired, or is kept.
 */
export type FromGuardian =
  | { deadline: number }
  | { held: true }
  | { lost: string }
  | { failed: string }
  | { kept: true };

export const encodeMessage = (message: object): string => `${JSON.stringify(message)}\n`;

/** The messages that arrive, until the other side closes its end. */
export async function* readMessages<T>(stream: AsyncIterable<Uint8Array>): AsyncGenerator<T> {
  const decoder = new TextDecoder();
  let unfinished = "";
  for await (const chunk of stream) {
    const lines = (unfinished + decoder.decode(chunk, { stream: true })).split("\n");
    unfinished = lines.pop()!;
    for (const line of lines) yield JSON.parse(line) as T;
  }
}
