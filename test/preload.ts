/**
 * No test may fail because the machine is slow. Bun reads no `timeout` in bunfig.toml, and what is set here counts for
 * the first file only: this is for somebody who runs one. `npm test` says it on the command line.
 */
import { setDefaultTimeout } from "bun:test";

setDefaultTimeout(60_000);
