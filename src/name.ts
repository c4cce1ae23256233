/** A lock's name: the default, the rules, the file name. */
import { WrongArgument } from "./errors.ts";
import { stat } from "./os/files.ts";
import { isReadOnly } from "./os/mounts.ts";
import { BUNDLE, isCompiled } from "./os/self.ts";

/** The longest file name that Linux and macOS file systems take, in bytes (`NAME_MAX`, limits.h(0p)). */
const NAME_MAX = 255;
const PREFIX = "exclusive_";
const SUFFIX = ".lock";
const HASH_LENGTH = 64;

/**
 * Checks a lock's name: any text but an empty one, which is most often a variable that was not set. Text, because two
 * names must not become one: bytes that are not UTF-8 all come as U+FFFD, and halves of surrogate pairs are written as it.
 * @throws {TypeError} for an empty name, and for one that is not text
 */
export function checkName(name: string): string {
  if (typeof name !== "string") throw new WrongArgument(`a lock's name is a string, not ${typeof name}`);
  if (name === "") throw new WrongArgument("a lock's name must not be empty (is a variable unset?)");
  if (!isText(name))
    throw new WrongArgument("a lock's name must be text in UTF-8, and this one has bytes that are not");
  if (lockOfQueueHead(name) !== undefined || isSecondHoldName(name) || isSeatName(name))
    throw new WrongArgument("this name is that of a lock's queue or second hold");
  return name;
}

const isText = (text: string): boolean => text.isWellFormed() && !text.includes("\ufffd");

/**
 * Checks the path of a lock file's directory, or of a file to lock. As for names, two paths must not become one.
 * @throws {TypeError} for an empty path, and for one that is not text
 */
export function checkPath(what: string, path: string): string {
  if (path === "") throw new WrongArgument(`${what} must not be empty (is a variable unset?)`);
  if (!isText(path))
    throw new WrongArgument(`${what} must be text in UTF-8, and this path has bytes that are not`);
  return path;
}

const ROOM = NAME_MAX - PREFIX.length - SUFFIX.length;
/** A quoted name that was cut: its head, and the hash. A name of this form is cut too, so that no two share a file. */
const CUT = new RegExp(`^.{${ROOM - HASH_LENGTH - 1}}-[0-9a-f]{${HASH_LENGTH}}$`);

/**
 * The name of the lock's file: `exclusive_<NAME>.lock`, with NAME quoted as in a URL's form data (Python's
 * `quote_plus`). A name that is too long for a file name is cut, and the SHA-256 of the whole name tells it from others.
 */
export function fileName(name: string): string {
  const quoted = quotePlus(name);
  if (quoted.length <= ROOM && !CUT.test(quoted)) return PREFIX + quoted + SUFFIX;
  const hash = new Bun.CryptoHasher("sha256").update(name).digest("hex");
  return `${PREFIX}${quoted.slice(0, ROOM - HASH_LENGTH - 1)}-${hash}${SUFFIX}`;
}

/** Does this file name hold all of its lock's name, quoted? */
export const isWholeName = (file: string): boolean => !CUT.test(file.slice(PREFIX.length, -SUFFIX.length));

/** Inverse of `fileName`; undefined for foreign files. For a cut name, the cut form. */
export function nameOfFile(file: string): string | undefined {
  if (!file.startsWith(PREFIX) || !file.endsWith(SUFFIX)) return undefined;
  const quoted = file.slice(PREFIX.length, -SUFFIX.length);
  if (CUT.test(quoted)) return quoted;
  try {
    const name = decodeURIComponent(quoted.replaceAll("+", " "));
    return name !== "" && fileName(name) === file ? name : undefined;
  } catch {
    return undefined;
  }
}

/** The name of one of the N slots of a lock. */
export const slotName = (name: string, slot: number): string => `${name}.${slot}`;

/** Is this the name of one of the slots of `base`? */
export function slotOf(name: string, base: string, slots: number): boolean {
  const slot = name.startsWith(`${base}.`) ? Number(name.slice(base.length + 1)) : 0;
  return slot >= 1 && slot <= slots && name === slotName(base, slot);
}

const QUEUE_HEAD = "\0next";

/** The head of the queue for a lock waits under a lock of its own, with a name that no command line can hold. */
export const queueHeadName = (name: string): string => name + QUEUE_HEAD;

/** The lock whose queue head this name denotes; undefined for other names. */
export const lockOfQueueHead = (name: string): string | undefined =>
  name.endsWith(QUEUE_HEAD) ? name.slice(0, -QUEUE_HEAD.length) : undefined;

const SEAT = "\0latest";

/** Waiters of which only the newest stays take a place each, under this name: see `store/latest.ts`. */
export const seatName = (name: string): string => name + SEAT;

/** Is this the name of such places, or of one of them? */
export const isSeatName = (name: string): boolean => name.includes(SEAT);

const STOP_TURN = "\0stop";

/** The processes that stop the holder of a lock take turns, by a lock of this name. */
export const stopTurnName = (name: string): string => name + STOP_TURN;

/** Is this the name of such a turn, not of a lock? */
export const isStopTurnName = (name: string): boolean => name.endsWith(STOP_TURN);

/** Part of the protocol: with another suffix, old and new versions would not exclude each other. */
const SECOND_HOLD = "\0witness";

/** The name under which a remote store keeps the second hold of a lock: see `store/second-hold.ts`. */
export const secondHoldName = (name: string): string => name + SECOND_HOLD;

/** The lock's own name, also from the name of its second hold. */
export const lockOfSecondHold = (name: string): string =>
  isSecondHoldName(name) ? name.slice(0, -SECOND_HOLD.length) : name;

/** Is this the name of a second hold, not of a lock? */
export const isSecondHoldName = (name: string): boolean => name.endsWith(SECOND_HOLD);

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

/** The directory of lock files where the options name none, and why it is that one. */
export interface DefaultDirectory {
  path: string;
  reason: string;
}

const VAR_LOCK = "/var/lock";
const TMP = "/tmp";

/**
 * The default directory of lock files: `EXCLUSIVE_DIR`, else one that is the same for every user and session of the
 * machine. So neither TMPDIR nor what this process may write decides.
 */
export function defaultDirectory(): DefaultDirectory {
  const given = process.env.EXCLUSIVE_DIR;
  if (given) return { path: checkPath("EXCLUSIVE_DIR", given), reason: "EXCLUSIVE_DIR is set" };
  const obstacle = whyNotForAll(VAR_LOCK);
  return obstacle === undefined
    ? { path: VAR_LOCK, reason: "the default: every user may write there" }
    : { path: TMP, reason: `the default, as ${VAR_LOCK} ${obstacle}` };
}

/** The other one of the two default directories: another mount namespace may use it. Undefined for any other path. */
export const otherDirectory = (used: string): string | undefined =>
  used === VAR_LOCK ? TMP : used === TMP ? VAR_LOCK : undefined;

/** Why a directory is not one where every user may make files, and delete only their own; undefined where it is. */
function whyNotForAll(path: string): string | undefined {
  const status = stat(path);
  if (typeof status === "string" || !status.directory) return "is not a directory";
  if ((status.mode & 0o1003) !== 0o1003) return "is not writable for all and sticky";
  return isReadOnly(path) ? "is on a read-only file system" : undefined;
}

// biome-ignore lint/complexity/noBannedTypes: what Error.captureStackTrace takes, which may be a class
type Callable = Function;

/**
 * The default name: the absolute path of the file that called `below`; in a compiled program, where the
 * caller's file is inside the bundle, the real path of the executable.
 */
export function callerName(below: Callable): string {
  const file = callerFile(below);
  if (file?.startsWith("file://")) return Bun.fileURLToPath(file);
  if (file !== undefined && !file.startsWith(BUNDLE)) return file;
  return isCompiled ? process.execPath : Bun.main;
}

/** Stack depth at which a decorator's caller appears: Bun adds frames of its own. */
const FRAMES = 10;

/**
 * The first stack frame with an absolute path. Skips Bun's built-ins, which have no path, and source-mapped bundles, whose
 * paths are relative to where they were built.
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
