/** Clean-up before a signal ends this process. */
import { constants } from "node:os";
import { wasBlocked } from "./signal-mask.ts";
import { isIgnored } from "./signal-sets.ts";
import { dieBySignal } from "./signals.ts";

/**
 * Signals that end a process by default, as far as JavaScript can listen to them. Not those of a fault: with a listener a real
 * one would come again without end.
 */
const ENDING = [
  ...(["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM"] as const),
  ...(["SIGPROF", "SIGXCPU", "SIGIO"] as const),
];

const cleanUps = new Set<() => void>();
let removeHandlers = () => {};

/**
 * Until disposed of: a signal that ends this process first does this, and every other clean-up that stands, the newest first.
 * A signal that was ignored or blocked at our start stays so, for the command too.
 */
export function beforeDeath(cleanUp: () => void): Disposable {
  if (cleanUps.size === 0) removeHandlers = addHandlers();
  cleanUps.add(cleanUp);
  return {
    [Symbol.dispose]() {
      if (cleanUps.delete(cleanUp) && cleanUps.size === 0) removeHandlers();
    },
  };
}

function addHandlers(): () => void {
  const undo = new DisposableStack();
  for (const name of ENDING) {
    const signal = constants.signals[name];
    if (isIgnored(signal) || wasBlocked(signal)) continue;
    const die = () => {
      for (const cleanUp of [...cleanUps].reverse()) cleanUp();
      dieBySignal(signal);
    };
    process.on(name, die);
    undo.defer(() => void process.off(name, die));
  }
  return () => undo.dispose();
}
