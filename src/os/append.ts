/** Appends a line to a file that many processes write. */
import { close, fstat, O, open } from "./files.ts";
import { address, type Code, libc } from "./libc.ts";

const fs = require("node:fs") as typeof import("node:fs");

const RLIMIT_FSIZE = 1;

/** Room that other writers may use between our look at the size and our write. */
const MARGIN = 65_536;

const NEWLINE = 10;

/**
 * Appends the line in one write(2), so that no line of another process stands in the middle of it. Does not wait for
 * the reader of a FIFO. Returns the code of a failure: `ENOSPC` and `EFBIG` also where only a part was written.
 *
 * A write that a full disk or SIGKILL cut short leaves a line without its end. The next line then begins with a newline.
 * @param line ends with a newline
 */
export function appendLine(path: string, line: Uint8Array): Code | undefined {
  const fd = open(path, O.WRONLY | O.APPEND | O.CREAT | O.NONBLOCK | O.NOCTTY);
  if (typeof fd === "string") return fd;
  try {
    const status = fstat(fd);
    const regular = typeof status !== "string" && status.regular;
    const size = regular ? fs.fstatSync(fd).size : 0;
    // A write beyond the limit would raise SIGXFSZ, which can end this process or its command: setrlimit(2).
    if (regular && size + line.length + MARGIN > fileSizeLimit()) return "EFBIG";
    const bytes = size > 0 && isCut(path, size) ? Buffer.concat([Buffer.of(NEWLINE), line]) : line;
    return fs.writeSync(fd, bytes) < bytes.length ? "ENOSPC" : undefined;
  } catch (error) {
    return (error as { code?: Code }).code ?? String(error);
  } finally {
    close(fd);
  }
}

/** Does the file end in the middle of a line? Not known, and so false, where it may not be read. */
function isCut(path: string, size: number): boolean {
  const fd = open(path, O.RDONLY | O.NONBLOCK | O.NOCTTY);
  if (typeof fd === "string") return false;
  const last = new Uint8Array(1);
  try {
    return fs.readSync(fd, last, 0, 1, size - 1) === 1 && last[0] !== NEWLINE;
  } catch {
    return false;
  } finally {
    close(fd);
  }
}

function fileSizeLimit(): bigint | number {
  const { getrlimit } = libc({ getrlimit: { args: ["i32", "ptr"], returns: "i32" } });
  const limits = new BigUint64Array(2);
  return getrlimit(RLIMIT_FSIZE, address(limits)) === 0 ? limits[0]! : Number.POSITIVE_INFINITY;
}
