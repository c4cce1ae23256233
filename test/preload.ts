/** Before any test file: no test may fail because the machine is slow. (Bun reads no `timeout` in bunfig.toml.) */
import { setDefaultTimeout } from "bun:test";

setDefaultTimeout(60_000);
