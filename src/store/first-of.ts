/** Waiting for the first of several locks. */
import { release } from "./own-holds.ts";
import type { Lease } from "./store.ts";

/** The first lease. The other attempts are aborted, and a lease that one of them obtained meanwhile is released. */
export async function firstOf<L extends Lease>(
  names: string[],
  signal: AbortSignal,
  wait: (name: string, signal: AbortSignal) => Promise<L>,
): Promise<L> {
  const enough = new AbortController();
  const all = names.map((name) => wait(name, AbortSignal.any([signal, enough.signal])));
  try {
    const winner = await Promise.any(all).catch((error: AggregateError) => {
      throw error.errors[0];
    });
    enough.abort();
    for (const result of await Promise.allSettled(all)) {
      if (result.status === "fulfilled" && result.value !== winner) await release(result.value);
    }
    return winner;
  } finally {
    enough.abort();
  }
}
