import type { SectionMode } from "./checker.ts";

/** What is fought for: exclusive, exclusive or shared, so many at a time. The first is the library's alone, and fast. */
export const LOCKS: { name: string; mode: SectionMode }[] = [
  { name: "fast", mode: "x" },
  { name: "slow", mode: "x" },
  { name: "book", mode: "s" },
  { name: "seats", mode: 2 },
];
