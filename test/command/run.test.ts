import { expect, test } from "bun:test";
import { exclusive, start } from "../support/process.ts";
import { TempDir } from "../support/temp-dir.ts";

test("a second run is refused with 75 and the holder's pid while the first one runs", async () => {
  using dir = new TempDir();
  await using first = start(["run", "t", "--", "sh", "-c", "echo begun; exec sleep 60"], { dir });
  await first.says("begun");
  const second = await exclusive(["run", "t", "--", "echo", "no"], { dir });
  expect(second.stdout).toBe("");
  expect(second.stderr).toContain(`pid ${first.pid}`);
  expect(second.status).toBe(75);
});
