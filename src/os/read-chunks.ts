/** Reads a file in pieces. */
import { close, O, open } from "./files.ts";
import type { Code } from "./libc.ts";

const fs = require("node:fs") as typeof import("node:fs");

const CHUNK_BYTES = 262_144;

/** Passes each piece on; it is valid until the next. Returns the code of a failure. */
export function readChunks(path: string, take: (chunk: Uint8Array) => void): Code | undefined {
  const fd = open(path, O.RDONLY | O.NOCTTY);
  if (typeof fd === "string") return fd;
  const buffer = new Uint8Array(CHUNK_BYTES);
  try {
    for (;;) {
      const n = readSome(fd, buffer);
      if (typeof n === "string") return n;
      if (n === 0) return undefined;
      take(buffer.subarray(0, n));
    }
  } finally {
    close(fd);
  }
}

function readSome(fd: number, buffer: Uint8Array): number | Code {
  for (;;) {
    try {
      return fs.readSync(fd, buffer, 0, buffer.length, null);
    } catch (error) {
      const { code = String(error) } = error as { code?: Code };
      if (code !== "EINTR") return code;
    }
  }
}
