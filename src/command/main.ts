#!/usr/bin/env bun
/** Entry point. Blocks signals before any other module is parsed: the engine may then start a thread. */
import { blockSignals } from "../os/signal-mask.ts";

blockSignals();
await import("./dispatch.ts");
