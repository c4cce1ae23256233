#!/usr/bin/env bun
/** The program's first lines: signals are blocked before anything else of ours is even parsed. */
import { blockSignals } from "../os/signal-mask.ts";

blockSignals();
await import("./dispatch.ts");
