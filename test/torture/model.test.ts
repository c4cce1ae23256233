/** The protocol of the lock file, explored whole, and the same with each part of it broken. */
import { afterAll, describe, expect, test } from "bun:test";
import { explore, leftovers } from "./explore.ts";
import { MUTATIONS, type Mutation, type Role, type World } from "./model.ts";

const tries: Role = { does: "try" };
const waits: Role = { does: "wait" };
const reads: Role = { does: "try", shared: true };
const waitsToRead: Role = { does: "wait", shared: true };
const runs: Role = { does: "wait", wraps: true };
const keeps: Role = { does: "wait", keep: true };
const looks: Role = { does: "status" };
const waitsUntilFree: Role = { does: "free" };
const asUser = (user: number, role: Role): Role => ({ ...role, user });

const WORLDS: Record<string, World> = {
  "three that try": { roles: [tries, tries, tries], outsider: true },
  "three that wait": { roles: [waits, waits, waits], outsider: true },
  "four that try": { roles: [tries, tries, tries, tries] },
  "four, two of which wait": { roles: [waits, waits, tries, tries] },
  "three readers": { roles: [reads, reads, waitsToRead], outsider: true },
  "two readers and a writer": { roles: [reads, reads, tries], outsider: true },
  "a reader, and writers who wait": { roles: [reads, waits, waits], outsider: true },
  "readers who wait, and a writer": { roles: [waitsToRead, waitsToRead, waits], outsider: true },
  "wrappers whose commands outlive them": { roles: [runs, runs, tries], outsider: true },
  "a wrapper, a reader, a writer": { roles: [runs, waitsToRead, tries], outsider: true },
  "wrappers that keep the file": {
    roles: [{ ...runs, keep: true }, { ...runs, keep: true }, tries],
    outsider: true,
  },
  "one keeps the file, the others do not": { roles: [keeps, waits, tries], outsider: true },
  "readers that keep the file": { roles: [{ ...reads, keep: true }, reads, waits], outsider: true },
  "somebody looks": { roles: [looks, waits, tries], outsider: true },
  "somebody looks at readers": { roles: [looks, reads, waits], outsider: true },
  "two look": { roles: [looks, looks, tries], outsider: true },
  "somebody waits until it is free": { roles: [waitsUntilFree, waits, tries], outsider: true },
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
};

let total = 0;
afterAll(() => console.log(`model: ${total} states of ${Object.keys(WORLDS).length} worlds explored`));

describe("nobody shares what is exclusive, waits for ever, or deletes another's file:", () => {
  for (const [name, world] of Object.entries(WORLDS)) {
    test(name, () => {
      const { states, finding } = explore(world);
      expect(finding).toBeUndefined();
      expect(states).toBeGreaterThan(100); // a world that does not move would show nothing
      total += states;
    });
  }
});

describe("no file is left when all have come to their end, without a crash:", () => {
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

/** What each broken protocol does wrong first, and in which world. */
const FAULTS: Record<Mutation, [world: string, fault: RegExp]> = {
  "no flock": ["three that try", /hold the lock at once/],
  "no inode check": ["three that try", /hold the lock at once/],
  "inode check before flock": ["three that try", /hold the lock at once/],
  "unlink after unlock": ["three that try", /deletes another's file/],
  "unlink without a look": ["two readers and a writer", /deletes another's file/],
  "shared unlinks without EX": ["two readers and a writer", /deletes another's file/],
  "O_CREAT without O_EXCL": ["two users in a sticky directory", /refuses O_CREAT/],
  "new file over the old one": ["three that try", /hold the lock at once/],
  "older files stay open": ["three that wait", /for ever|fresh process/],
  "close without unlock": ["wrappers that keep the file", /fresh process/],
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
