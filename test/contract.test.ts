/** What docs/stability.md promises to keep is what the program has: docs/contract.txt. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { contract } from "../docs/contract.ts";
import { root } from "./support/paths.ts";

test("options, exit statuses, variables, JSON, the record and the library's types are those of docs/contract.txt", async () => {
  // A line that is added needs a minor version, one that goes or changes a major one: then `npm run contract` writes the file.
  expect(await contract()).toBe(readFileSync(`${root}/docs/contract.txt`, "utf8"));
}, 120_000);
