/** The clock that leases are measured by: it only goes forward, and counts the time that the machine sleeps. */
import { address, libc, linux } from "./libc.ts";

/**
 * `CLOCK_BOOTTIME` on Linux: `CLOCK_MONOTONIC` stands still there while the machine is suspended, and so do the
 * timers of the event loop. On macOS `CLOCK_MONOTONIC` counts sleep: clock_gettime(2), clock_gettime(3).
 */
const CLOCK = linux ? 7 : 6;

const { clock_gettime } = libc({ clock_gettime: { args: ["i32", "ptr"], returns: "i32" } });
const time = new BigInt64Array(2);
const timeAddress = address(time);

/** Milliseconds since a moment in the past that is the same for every process of this host. */
export function clock(): number {
  clock_gettime(CLOCK, timeAddress);
  return Number(time[0]) * 1000 + Number(time[1]) / 1e6;
}
