/** The suite of every store, against files. */
import { pathToFileURL } from "node:url";
import { TempDir } from "../../support/temp-dir.ts";
import { storeSuite } from "../suite.ts";

storeSuite(
  "file",
  async () => {
    const dir = new TempDir();
    return { url: pathToFileURL(dir.path).href, [Symbol.asyncDispose]: async () => dir[Symbol.dispose]() };
  },
  { shared: true },
);
