/**
 * No test may fail because the machine is slow. Bun reads no `timeout` in bunfig.toml, and a default that is set here
 * applies to the first file only: enough for a run of one file. `npm test` sets it on the command line.
 */
import { setDefaultTimeout } from "bun:test";

setDefaultTimeout(60_000);

// A version manager's shim of python3 takes ten times as long to start as what it stands for.
process.env.PATH = `/usr/bin:${process.env.PATH}`;
