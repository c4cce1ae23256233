/** The C library: opens it, reads errno, hands out addresses, and starts worker threads that call it. */
import type { FFIFunction, Pointer } from "bun:ffi";
import { CannotRun } from "../errors.ts";

// The module `bun:ffi` wraps this object. Using it directly saves 0.2 ms of start-up.
const { CString, dlopen, ptr, read } = ((Bun as { FFI?: typeof import("bun:ffi") }).FFI ??
  require("bun:ffi")) as typeof import("bun:ffi");

export const linux = process.platform === "linux";
const arm = process.arch === "arm64";

/** Which C library the binary is linked with; `build.ts` defines it. */
declare const BUILD_LIBC: "glibc" | "musl" | undefined;

/** A C function: integers and addresses go in, an integer or an address comes out. */
export type CFunction = ((...args: (number | bigint | null)[]) => number) & { ptr: number };

export type CFunctions = Record<string, FFIFunction>;

/** The address of the bytes, for a C function. They must stay referenced while the function may use them. */
export const address = (bytes: NodeJS.TypedArray, offset = 0): Pointer => ptr(bytes, offset);

/** The text at an address in memory, up to its NUL. */
export const textAt = (at: number): string => new CString(at as Pointer).toString();

/** The pointer at an address in memory. */
export const pointerAt = (at: number): number => read.ptr(at as Pointer, 0);

/**
 * Where the C library can be. Absolute paths only: for a bare name that it cannot open, Bun tries the current
 * directory, and would run the constructors of a library that anyone put there.
 */
function* candidates(): Generator<string> {
  if (!linux) return yield "/usr/lib/libSystem.B.dylib";
  const machine = arm ? "aarch64" : "x86_64";
  // musl is its own loader and knows itself by this name only: it would load another one a second time.
  if (usesMusl()) yield `/lib/ld-musl-${machine}.so.1`;
  else {
    yield `/lib/${machine}-linux-gnu/libc.so.6`;
    for (const directory of ["/lib64", "/usr/lib64", "/lib", "/usr/lib"]) yield `${directory}/libc.so.6`;
  }
  const mapped = mappedLibc();
  if (mapped !== undefined) yield mapped;
}

function usesMusl(): boolean {
  if (typeof BUILD_LIBC !== "undefined") return BUILD_LIBC === "musl";
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return report.header?.glibcVersionRuntime === undefined;
}

/** The C library that this program runs on, for people. */
export function cLibrary(): string {
  if (!linux) return "libSystem";
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return usesMusl() ? "musl" : `glibc ${report.header?.glibcVersionRuntime ?? ""}`.trim();
}

/** The C library that this process has mapped, for systems that keep it elsewhere: proc_pid_maps(5). */
function mappedLibc(): string | undefined {
  try {
    const fs = require("node:fs") as typeof import("node:fs");
    const maps = fs.readFileSync("/proc/self/maps", "utf8");
    return /\/.*\/(libc\.so\.6|libc-2\.\d+\.so|ld-musl-\w+\.so\.1)$/m.exec(maps)?.[0];
  } catch {
    return undefined; // no /proc
  }
}

let path: string | undefined;

/**
 * Opens the C library with these functions. A function that the platform lacks must not be in the list.
 * @throws {CannotRun} with the reason of the first failure: later ones are consequences, or say that a path does not exist
 */
export function libc<F extends CFunctions>(functions: F): Record<keyof F, CFunction> {
  let failure: unknown;
  for (const candidate of path === undefined ? candidates() : [path]) {
    const opened = tryOpen(candidate, functions);
    if ("symbols" in opened) {
      path = candidate;
      return opened.symbols as Record<keyof F, CFunction>;
    }
    if (failure === undefined || isAbsence(failure)) failure = opened;
  }
  throw new CannotRun(reasonOf(failure));
}

/** The reason for people. Without a JIT bun:ffi opens nothing, and says no more than that. */
function reasonOf(failure: unknown): string {
  const { message = String(failure) } = failure as Partial<Error>;
  if (!/requires the JIT/i.test(message)) return `the C library cannot be opened: ${message}`;
  return (
    "no memory may be both written and executed (systemd's MemoryDenyWriteExecute=), " +
    `or too little address space (ulimit -v): ${message}`
  );
}

/** What is opened, or why not: a failure is returned or thrown, depending on what fails. */
function tryOpen(candidate: string, functions: CFunctions): object {
  try {
    return dlopen(candidate, functions);
  } catch (error) {
    return error as Error;
  }
}

const isAbsence = (failure: unknown): boolean => /no such file/i.test(String(failure));

/** What went wrong, as errno(3) names it: `EACCES`, `ENOENT`. */
export type Code = string;

/** The answers that calls give in normal work. */
const FREQUENT: Record<number, Code> = { 4: "EINTR", [linux ? 11 : 35]: "EAGAIN" };

/** `EACCES` for 13. A number without a known name stays a number. */
export function errorCode(errno: number): Code {
  const frequent = FREQUENT[errno];
  if (frequent !== undefined) return frequent;
  const known = Object.entries((require("node:os") as typeof import("node:os")).constants.errno);
  return known.find(([, number]) => number === errno)?.[0] ?? String(errno);
}

const errnoLocation = linux ? "__errno_location" : "__error";
const errnoAddress = libc({ [errnoLocation]: { args: [], returns: "ptr" } })[errnoLocation]!() as Pointer;

/** Why the C function failed that returned this; undefined if it did not. Must come directly after the call. */
export const failureOf = (result: number): Code | undefined =>
  result < 0 ? errorCode(read.i32(errnoAddress, 0)) : undefined;

/**
 * Starts a worker thread that calls the same C library. Its program is text, so that it is at hand in a script, in a
 * bundle and in a compiled program alike.
 * @param functions what the program calls, as `c.NAME`
 * @param body the program; `ptr` is there, and `errno()`
 */
export function startThread(functions: CFunctions, body: string): Worker {
  const all = { ...functions, [errnoLocation]: { args: [], returns: "ptr" } };
  const program = `
import { dlopen, ptr, read } from "bun:ffi";
const c = dlopen(${JSON.stringify(path)}, ${JSON.stringify(all)}).symbols;
const errno = () => read.i32(c.${errnoLocation}(), 0);
${body}`;
  const url = URL.createObjectURL(new Blob([program], { type: "application/javascript" }));
  const worker = newWorker(url);
  const loaded = () => URL.revokeObjectURL(url);
  worker.addEventListener("message", loaded, { once: true });
  worker.addEventListener("error", loaded, { once: true });
  return worker;
}

/** What a thread of Bun needs for its event loop, and one for what it opens on its way. */
const DESCRIPTORS_OF_THREAD = 3;

/**
 * @throws {CannotRun} where the system refuses another thread, or the descriptors for it: there Bun would end the process
 * with 1
 */
function newWorker(url: string): Worker {
  const fs = require("node:fs") as typeof import("node:fs");
  const free: number[] = [];
  try {
    while (free.length < DESCRIPTORS_OF_THREAD) free.push(fs.openSync("/", "r"));
  } catch (error) {
    throw new CannotRun(`no thread to wait in: ${(error as Error).message} (ulimit -n)`);
  } finally {
    for (const fd of free) fs.closeSync(fd);
  }
  try {
    return new Worker(url);
  } catch (error) {
    throw new CannotRun(
      `no thread to wait in: ${(error as Error).message} (ulimit -u, or too little memory)`,
    );
  }
}
