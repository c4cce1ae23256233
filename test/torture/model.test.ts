/** Explores the protocol of the lock file, and the same protocol with each of its parts broken. */
import { afterAll, describe, expect, test } from "bun:test";
import { explore, leftovers } from "./explore.ts";
import { MUTATIONS, type Mutation, type Role, type World } from "./model.ts";

const tries: Role = { does: "try" };
const waits: Role = { does: "wait" };
const reads: Role = { does: "try", shared: true };
const waitsToRead: Role = { does: "wait", shared: true };
const runs: Role = { does: "wait", wraps: true };
const keeps: Role = { does: "wait", keep: true };
const inspects: Role = { does: "status" };
const waitsUntilFree: Role = { does: "free" };
const asUser = (user: number, role: Role): Role => ({ ...role, user });

const WORLDS: Record<string, World> = {
  "three tries": { roles: [tries, tries, tries], outsider: true },
  "two waiters": { roles: [waits, waits], outsider: true },
  "three waiters": { roles: [waits, waits, waits], outsider: true },
  "four tries": { roles: [tries, tries, tries, tries] },
  "four, two of them waiters": { roles: [waits, waits, tries, tries] },
  "three readers": { roles: [reads, reads, waitsToRead], outsider: true },
  "two readers and a writer": { roles: [reads, reads, tries], outsider: true },
  "a reader and two waiting writers": { roles: [reads, waits, waits], outsider: true },
  "two waiting readers and a writer": { roles: [waitsToRead, waitsToRead, waits], outsider: true },
  "wrappers whose commands outlive them": { roles: [runs, runs, tries], outsider: true },
  "a wrapper, a reader, a writer": { roles: [runs, waitsToRead, tries], outsider: true },
  "wrappers that keep the file": {
    roles: [{ ...runs, keep: true }, { ...runs, keep: true }, tries],
    outsider: true,
  },
  "one keeps the file, the others delete it": { roles: [keeps, waits, tries], outsider: true },
  "readers that keep the file": { roles: [{ ...reads, keep: true }, reads, waits], outsider: true },
  "one inspects": { roles: [inspects, waits, tries], outsider: true },
  "one inspects readers": { roles: [inspects, reads, waits], outsider: true },
  "two inspect": { roles: [inspects, inspects, tries], outsider: true },
  "one waits until the lock is free": { roles: [waitsUntilFree, waits, tries], outsider: true },
  "two users": { roles: [asUser(1, tries), asUser(2, waits), asUser(2, tries)], outsider: true },
  "readers of two users": { roles: [asUser(1, reads), asUser(2, reads), asUser(2, waits)] },
  "two users in a sticky directory": {
    roles: [asUser(1, tries), asUser(2, waits), asUser(2, tries)],
    sticky: true,
  },
  "readers of two users in a sticky directory": {
    roles: [asUser(1, reads), asUser(2, reads), asUser(2, waits)],
    sticky: true,
  },
  "a waiter and two tries, in any order of files": { roles: [waits, tries, tries], reuses: true },
  "two waiters and a try, in any order of files": { roles: [waits, waits, tries], reuses: true },
  "two waiters whose directory changes back": { roles: [waits, waits], rollback: true, reuses: true },
  "a waiting reader and a waiting writer whose directory changes back": {
    roles: [waitsToRead, waits],
    rollback: true,
    reuses: true,
  },
  "a waiter and one until it is free, whose directory changes back": {
    roles: [waits, waitsUntilFree, tries],
    rollback: true,
    reuses: true,
  },
};

/** These take twenty seconds each on an idle processor: explored with `MODEL=all`. */
const LARGE = [
  "four, two of them waiters",
  "two waiting readers and a writer",
  "two waiters and a try, in any order of files",
];
const LIMIT_MS = 300_000;

let total = 0;
afterAll(() => console.log(`model: ${total} states explored`));

describe("no two processes share an exclusive lock, wait forever or delete another's file:", () => {
  for (const [name, world] of Object.entries(WORLDS)) {
    test.skipIf(LARGE.includes(name) && process.env.MODEL !== "all")(
      name,
      () => {
        const { states, finding } = explore(world);
        expect(finding).toBeUndefined();
        expect(states).toBeGreaterThan(100); // a world without steps would show nothing
        total += states;
      },
      LIMIT_MS,
    );
  }
});

describe("without a crash no file is left when all have finished:", () => {
  for (const roles of [
    [tries, waits, tries],
    [reads, waitsToRead, tries],
    [runs, reads, waits],
  ]) {
    test(
      roles
        .map(({ does, shared, wraps }) => `${does}${shared ? " shared" : ""}${wraps ? " run" : ""}`)
        .join(", "),
      () => {
        expect(leftovers({ roles, crashes: false })).toBe(0);
      },
    );
  }
});

/** The first fault of each broken protocol, and the world that shows it. */
const FAULTS: Record<Mutation, [world: string, fault: RegExp]> = {
  "no flock": ["three tries", /hold the lock at once/],
  "no inode check": ["three tries", /hold the lock at once/],
  "inode check before flock": ["three tries", /hold the lock at once/],
  "unlink after unlock": ["three tries", /deletes another's file/],
  "unlink without a check": ["two readers and a writer", /deletes another's file/],
  "shared unlinks without EX": ["two readers and a writer", /deletes another's file/],
  "O_CREAT without O_EXCL": ["two users in a sticky directory", /refuses O_CREAT/],
  "new file over the old one": ["three tries", /hold the lock at once/],
  "older files stay open": ["two waiters", /forever|fresh process/],
  "close without unlock": ["wrappers that keep the file", /fresh process/],
  "waits with any file locked": ["two waiters whose directory changes back", /a process waits forever/],
};

describe("a broken protocol is found:", () => {
  for (const mutation of Object.keys(MUTATIONS) as Mutation[]) {
    test(`${mutation}: ${MUTATIONS[mutation]}`, () => {
      const [world, fault] = FAULTS[mutation];
      const { finding } = explore(WORLDS[world]!, mutation);
      expect(finding?.fault).toMatch(fault);
      expect(finding!.trace.length).toBeGreaterThan(1);
    });
  }
});
