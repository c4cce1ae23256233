import type { SectionMode } from "./checker.ts";

/** The locks of the torture: exclusive, exclusive or shared, with slots. Only the library takes the first one, which is fast. */
export const LOCKS: { name: string; mode: SectionMode }[] = [
  { name: "fast", mode: "x" },
  { name: "slow", mode: "x" },
  { name: "book", mode: "s" },
  { name: "seats", mode: 2 },
];
