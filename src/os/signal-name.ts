/** The names of signals. */

/** `SIGTERM` for 15; a number without a name stays one: `SIG34`. */
export function signalName(number: number): string {
  const { signals } = (require("node:os") as typeof import("node:os")).constants;
  return Object.entries(signals).find(([, each]) => each === number)?.[0] ?? `SIG${number}`;
}
