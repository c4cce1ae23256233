/** `.ci/run` installs what the tests need. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { root } from "./support/paths.ts";

/** The last argument of `required`, or its name in a table. */
const NEEDED = /\brequired\(\s*[^()]*?,\s*"([^"]+)",?\s*\)|\bdebianPackage: "([^"]+)"/g;

test("every Debian package that a test asks for is installed by .ci/run", () => {
  const installed = /^packages=\(([^)]*)\)/m.exec(readFileSync(`${root}/.ci/run`, "utf8"))![1]!.split(/\s+/);
  const needed = new Set<string>();
  for (const file of new Bun.Glob("test/**/*.ts").scanSync(root)) {
    for (const [, argument, named] of readFileSync(`${root}/${file}`, "utf8").matchAll(NEEDED)) {
      for (const name of (argument ?? named)!.split(" ")) needed.add(name);
    }
  }
  expect(needed.size).toBeGreaterThan(20);
  expect([...needed].filter((name) => !installed.includes(name))).toEqual([]);
});
