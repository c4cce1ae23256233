/** Clean-up before a signal ends this process. */
import { isIgnored } from "./signal-sets.ts";
import { dieBySignal, SIG } from "./signals.ts";

const ENDING = { SIGHUP: SIG.HUP, SIGINT: SIG.INT, SIGTERM: SIG.TERM } as const;

const cleanUps = new Set<() => void>();
let removeHandlers = () => {};

/**
 * Until disposed of: a signal that ends this process first does this, and every other clean-up that stands, the newest first.
 * A signal that was ignored at our start stays ignored, for the command too.
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
  const handlers = (Object.keys(ENDING) as (keyof typeof ENDING)[])
    .filter((signal) => !isIgnored(signal))
    .map((signal) => {
      const die = () => {
        for (const cleanUp of [...cleanUps].reverse()) cleanUp();
        dieBySignal(ENDING[signal]);
      };
      process.on(signal, die);
      return () => process.off(signal, die);
    });
  return () => {
    for (const remove of handlers) remove();
  };
}
