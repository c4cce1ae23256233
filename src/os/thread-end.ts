/**
 * Descriptors that are closed when the thread that opened them ends. A Worker that is terminated runs no more code: no
 * `finally`, no "exit" event. Its descriptors belong to the process, and with them its locks would stay until that ends.
 *
 * The C library calls a function for each value of a thread when the thread ends: here close(2), and the value is the
 * descriptor. pthread_key_create(3p).
 */
import { address, type CFunction, libc, linux } from "./libc.ts";

/** `pthread_key_t`: an unsigned int on Linux, an unsigned long on macOS. */
const KEY = linux ? "u32" : "u64";

let functions: Record<
  "pthread_key_create" | "pthread_setspecific" | "pthread_key_delete" | "close",
  CFunction
>;
function c() {
  functions ??= libc({
    pthread_key_create: { args: ["ptr", "ptr"], returns: "i32" },
    pthread_setspecific: { args: [KEY, "u64"], returns: "i32" },
    pthread_key_delete: { args: [KEY], returns: "i32" },
    close: { args: ["i32"], returns: "i32" },
  });
  return functions;
}

/** The key of each descriptor. */
const keys = new Map<number, number>();

/** In a Worker, has this descriptor closed when the Worker ends. A process has at least 128 keys: beyond, it stays open. */
export function closeAtThreadEnd(fd: number): void {
  if (Bun.isMainThread) return;
  const key = new Uint32Array(2);
  if (c().pthread_key_create(address(key), c().close.ptr) !== 0) return;
  keys.set(fd, key[0]!);
  c().pthread_setspecific(key[0]!, BigInt(fd));
}

/** To be called before a descriptor is closed: its number may soon be another file's. */
export function forgetAtThreadEnd(fd: number): void {
  const key = keys.get(fd);
  if (key === undefined) return;
  keys.delete(fd);
  c().pthread_key_delete(key); // calls nothing
}
