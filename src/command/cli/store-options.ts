// The names of before, for run.ts until it is merged.
export { LEASE, lockLocation as whereOf } from "./lock-options.ts";
