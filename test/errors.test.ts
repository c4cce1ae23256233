import { expect, test } from "bun:test";
import { printable } from "../src/errors.ts";
import { CannotAcquireLock, LockFileError, LockLost, LockTimeout, StoreError } from "../src/index.ts";

const refusal = { lock: "nightly", lockfile: "/var/lock/exclusive_nightly.lock", holder: { pid: 42 } };

test("CannotAcquireLock carries the lock's name, its file and its holder", () => {
  const error = new CannotAcquireLock(refusal);
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ ...refusal, name: "CannotAcquireLock", code: "ELOCKED" });
  expect(String(error)).toBe("CannotAcquireLock: Another 'nightly' process is already running (pid 42).");
  expect(error.message).toBe("Another 'nightly' process is already running (pid 42).");
  expect(new CannotAcquireLock({ ...refusal, holder: undefined }).message).toBe(
    "Another 'nightly' process is already running.",
  );
});

test("LockTimeout is a CannotAcquireLock that names how long the wait was", () => {
  const error = new LockTimeout(refusal, "1.5s");
  expect(error).toBeInstanceOf(CannotAcquireLock);
  expect(error).toMatchObject({ ...refusal, name: "LockTimeout", code: "ETIMEDOUT" });
  expect(error.message).toBe("'nightly' is still locked after 1.5s (by pid 42).");
});

test("a lock that this very process holds is not said to be another's", () => {
  const own = { ...refusal, holder: { pid: process.pid, alive: true } };
  const message = `'nightly' is already locked by this process (pid ${process.pid})`;
  expect(new CannotAcquireLock(own).message).toBe(message);
  // The same number on another host, or of an earlier boot, is another process.
  for (const alive of [false, undefined])
    expect(new CannotAcquireLock({ ...own, holder: { pid: process.pid, alive } }).message).toStartWith(
      "Another",
    );
});

test("each error has a code and the name of its class", () => {
  const file = new LockFileError("cannot open x: Permission denied", "EACCES", "open", "x");
  expect(file).toMatchObject({ name: "LockFileError", code: "EACCES", operation: "open", path: "x" });
  expect(new LockLost("gone")).toMatchObject({ name: "LockLost", code: "ELOCKLOST" });
  expect(new StoreError("down")).toMatchObject({ name: "StoreError", code: "ESTORE" });
});

test("printable: no control sequence in a name reaches the terminal", () => {
  expect(printable("plain ünïcode 漢字 🔒")).toBe("plain ünïcode 漢字 🔒");
  expect(printable("\x1b[31mred\n\x07\x7f\u009b")).toBe("\\x1b[31mred\\x0a\\x07\\x7f\\x9b");
  expect(printable("a\u202eb\u2028c\u{e0001}")).toBe("a\\u{202e}b\\u{2028}c\\u{e0001}");
  expect(printable("\ud800")).toBe("\\u{d800}");
  expect(new CannotAcquireLock({ ...refusal, lock: "\x1b]0;owned\x07" }).message).toBe(
    "Another '\\x1b]0;owned\\x07' process is already running (pid 42).",
  );
});
