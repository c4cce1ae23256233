/**
 * A marker: an open file that a command inherits and all that it starts inherits further, so that the kernel names them,
 * whatever else they shed. It is the writing end of a pipe that no process reads or writes.
 */
import { close, readDirectory, readlink } from "./files.ts";
import { address, type CFunction, libc, linux } from "./libc.ts";
import { processIds } from "./processes.ts";

let pipe: CFunction | undefined;

/** A marker in this process. */
export interface Marker {
  fd: number;
  /** What /proc/PID/fd shows for it, the same in every process; undefined where the OS shows nothing. */
  id: string | undefined;
}

/** Makes a marker. */
export function makeMarker(): Marker {
  pipe ??= libc({ pipe: { args: ["ptr"], returns: "i32" } }).pipe;
  const ends = new Int32Array(2);
  if (pipe(address(ends)) !== 0) return { fd: -1, id: undefined };
  const [reading, fd] = ends as unknown as [number, number];
  close(reading);
  return { fd, id: linux ? readlink(`/proc/self/fd/${fd}`) : undefined };
}

/** Every process but this one that has the marker, of those that we may look into. */
export function processesWith(id: string): number[] {
  return processIds().filter((pid) => pid !== process.pid && hasOpen(pid, id));
}

function hasOpen(pid: number, id: string): boolean {
  const directory = `/proc/${pid}/fd`;
  const fds = readDirectory(directory);
  return typeof fds !== "string" && fds.some((fd) => readlink(`${directory}/${fd}`) === id);
}
