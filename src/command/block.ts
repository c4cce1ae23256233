/** Blocks signals as it is imported: `main.ts` does so before it imports anything else, for the reason in `signals.ts`. */
import { blockSignals } from "./signals.ts";

blockSignals();
