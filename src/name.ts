/** A lock's name: the default, the rules, the file name. */
import { writableDirectory } from "./os/libc.ts";

/** The longest file name that Linux and macOS file systems take, in bytes (`NAME_MAX`, limits.h(0p)). */
const NAME_MAX = 255;
const PREFIX = "exclusive_";
const SUFFIX = ".lock";
const HASH_LENGTH = 64;

/**
 * Checks a lock's name: any text but an empty one, which is most often a variable that was not set. Text, because two
 * names must not become one: bytes that are no UTF-8 all come as U+FFFD, and halves of surrogate pairs are written as it.
 * @throws {TypeError} for an empty name, and one that is no text
 */
export function checkName(name: string): string {
  if (typeof name !== "string") throw new TypeError(`a lock's name is a string, not ${typeof name}`);
  if (name === "") throw new TypeError("a lock's name must not be empty (is a variable unset?)");
  if (!name.isWellFormed() || name.includes("\ufffd"))
    throw new TypeError("a lock's name must be text in UTF-8, and this one has bytes that are not");
  return name;
}

const ROOM = NAME_MAX - PREFIX.length - SUFFIX.length;

/**
 * The name of the lock's file: `exclusive_<NAME>.lock`, with NAME quoted as in a URL's form data (Python's
 * `quote_plus`). A name that would be longer than a file's name can be is cut, and told from others by the
 * SHA-256 of all of it.
 */
export function fileName(name: string): string {
  const quoted = quotePlus(name);
  if (quoted.length <= ROOM) return PREFIX + quoted + SUFFIX;
  const hash = new Bun.CryptoHasher("sha256").update(name).digest("hex");
  return `${PREFIX}${quoted.slice(0, ROOM - HASH_LENGTH - 1)}-${hash}${SUFFIX}`;
}

/** Is all of the name in the file's name? */
export const nameFits = (name: string): boolean => quotePlus(name).length <= ROOM;

/** The lock's name in a file name of ours; undefined for another file. Of a name that was cut it is what is left. */
export function nameOfFile(file: string): string | undefined {
  if (!file.startsWith(PREFIX) || !file.endsWith(SUFFIX)) return undefined;
  const quoted = file.slice(PREFIX.length, -SUFFIX.length);
  if (quoted.length === ROOM && /-[0-9a-f]{64}$/.test(quoted)) return quoted;
  try {
    const name = decodeURIComponent(quoted.replaceAll("+", " "));
    return name !== "" && fileName(name) === file ? name : undefined;
  } catch {
    return undefined;
  }
}

/** The name of one of the N places of a lock with slots. */
export const slotName = (name: string, slot: number): string => `${name}.${slot}`;

/** Is this name that of one of the slots of `base`? */
export function slotOf(name: string, base: string, slots: number): boolean {
  const slot = name.startsWith(`${base}.`) ? Number(name.slice(base.length + 1)) : 0;
  return slot >= 1 && slot <= slots && name === slotName(base, slot);
}

const QUEUE_HEAD = "\0next";

/** The lock that the head of a lock's queue holds: a name that no command line can contain. */
export const queueHeadName = (name: string): string => name + QUEUE_HEAD;

/** The lock whose queue head this name denotes; undefined for other names. */
export const lockOfQueueHead = (name: string): string | undefined =>
  name.endsWith(QUEUE_HEAD) ? name.slice(0, -QUEUE_HEAD.length) : undefined;

const WITNESS = "\0witness";

/** The name under which a remote store keeps the witness of a lock: see `store/second-hold.ts`. */
export const witnessName = (name: string): string => name + WITNESS;

/** Is this the name of a witness, not of a lock? */
export const isWitnessName = (name: string): boolean => name.endsWith(WITNESS);

const plain = /^[A-Za-z0-9_.~-]*$/;

function quotePlus(text: string): string {
  if (plain.test(text)) return text;
  let quoted = "";
  for (const byte of new TextEncoder().encode(text)) {
    const character = String.fromCharCode(byte);
    if (character === " ") quoted += "+";
    else quoted += plain.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return quoted;
}

/**
 * Where lock files live when nobody says: `EXCLUSIVE_DIR`, else `/var/lock` when it is a directory that can
 * be written, else the temp directory (`TMPDIR`, else `/tmp`).
 */
export function defaultDirectory(): string {
  const given = process.env.EXCLUSIVE_DIR;
  if (given) return given;
  if (writableDirectory("/var/lock/")) return "/var/lock";
  return process.env.TMPDIR?.replace(/(?<=.)\/+$/, "") || "/tmp";
}

// biome-ignore lint/complexity/noBannedTypes: what Error.captureStackTrace takes, which may be a class
type Callable = Function;

/** Where the files are that `bun build --compile` puts into a program. */
const BUNDLE = "/$bunfs/";

/**
 * The default name: the absolute path of the file that called `below`; in a compiled program, where the
 * caller's file is inside the bundle, the real path of the executable.
 */
export function callerName(below: Callable): string {
  const file = callerFile(below);
  if (file?.startsWith("file://")) return Bun.fileURLToPath(file);
  if (file !== undefined && !file.startsWith(BUNDLE)) return file;
  return Bun.main.startsWith(BUNDLE) ? process.execPath : Bun.main;
}

/** So far up is a decorator's file, behind what Bun calls decorators with. */
const FRAMES = 10;

/**
 * The first file in the call stack that can be told: not Bun's own code, which has a name without a path, nor code in
 * a bundle with a source map, which has the name of when it was built, relative to somewhere.
 */
function callerFile(below: Callable): string | undefined {
  const { prepareStackTrace, stackTraceLimit } = Error;
  try {
    Error.stackTraceLimit = FRAMES;
    Error.prepareStackTrace = (_, sites) => sites;
    const holder: { stack?: NodeJS.CallSite[] } = {};
    Error.captureStackTrace(holder, below);
    const files = holder.stack?.map((site) => site.getFileName() ?? "") ?? [];
    return files.find((file) => file.startsWith("/") || file.startsWith("file://"));
  } finally {
    Error.prepareStackTrace = prepareStackTrace;
    Error.stackTraceLimit = stackTraceLimit;
  }
}
