/** The picture of the README. */
import { expect, test } from "bun:test";
import { readFileSync, statSync } from "node:fs";
import { record } from "../docs/picture.ts";
import { root } from "./support/paths.ts";

const FILE = `${root}/docs/session.svg`;

/** The texts of the last frame. Pids and times differ from one recording to the next. */
const settled = (lines: readonly string[]): string[] =>
  lines
    .filter((line) => line !== "" && line !== "$")
    .map((line) =>
      line
        .replaceAll(/\bpid \d+/g, "pid N")
        .replaceAll(/\bfor \d+s/g, "for T")
        .replace(/held +\d+ +\w+ +\d+s/, "held N USER T")
        .replaceAll(/ {2,}/g, " "),
    );

test("the picture of the README shows what a terminal shows today", async () => {
  const svg = readFileSync(FILE, "utf8");
  expect(readFileSync(`${root}/README.md`, "utf8")).toContain("(docs/session.svg)");
  expect(statSync(FILE).size).toBeLessThan(20_000);
  const last = [...svg.matchAll(/<text y="([\d.]+)" class="[a-z]+" [^>]*>([^<]*)</g)]
    .sort(([, a], [, b]) => Number(a) - Number(b))
    .map(([, , text = ""]) => text.replaceAll("\u00a0", " ").replaceAll("&amp;", "&"));
  const frames = await record(200);
  expect(settled(last)).toEqual(settled(frames.at(-1)!.lines));
  expect(settled(last)).toContain("exclusive: 'backup' is held by pid N for T: sleep 9");
});
