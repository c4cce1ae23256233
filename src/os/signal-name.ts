/** The names of signals. */

/** `SIGTERM` for 15; a number without a name stays one: `SIG34`. */
export function signalName(number: number): string {
  const { signals } = (require("node:os") as typeof import("node:os")).constants;
  return Object.entries(signals).find(([, each]) => each === number)?.[0] ?? `SIG${number}`;
}

/** The real-time signals that the C library leaves to programs: signal(7). */
const RTMIN = 34;
const RTMAX = 64;

/** 37 for `RTMIN+3`, `RTMAX-27` and `37`, as kill(1) has it; undefined for what is no real-time signal of this system. */
export function realTimeSignal(text: string): number | undefined {
  const [, limit, offset = "", plain] = /^(?:(RTMIN|RTMAX)([+-]\d+)?|(\d+))$/.exec(text) ?? [];
  const number = limit === undefined ? Number(plain) : (limit === "RTMIN" ? RTMIN : RTMAX) + Number(offset);
  return process.platform === "linux" && number >= RTMIN && number <= RTMAX ? number : undefined;
}
