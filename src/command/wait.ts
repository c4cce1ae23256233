/**
 * `exclusive wait`: wait until a lock is free.
 *
 * It waits in the kernel's queue as one who wants the lock, and lets go in the moment in which it gets it
 * (`FileStore.waitFree`): nobody is refused because of it, and no lock file is made. Free is what it was in that
 * moment; somebody else may have it when the next command runs. To have it, use `run --wait`.
 */
import { milliseconds } from "../duration.ts";
import { LockFileError, printable } from "../errors.ts";
import type { LockStatus, Store } from "../store/store.ts";
import { EXIT } from "./cli/exit-status.ts";
import { lookUp, oneName, PLACE, storeOf } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";
import { byWhom } from "./output/describe-holder.ts";
import { Describer } from "./output/describer.ts";
import { complain, jsonLine, Log, print } from "./output/print.ts";
import { showWaiting } from "./output/wait-line.ts";

export const OPTIONS = {
  timeout: { short: "t", value: "DURATION", help: "wait at most so long (0: do not wait)" },
  quiet: { short: "q", help: "say nothing" },
  json: { help: "print one JSON object: the lock's status, and the seconds waited" },
  ...PLACE,
} as const;

export async function wait(args: string[]): Promise<number> {
  const { values, rest } = parseOptions(args, OPTIONS, true);
  const name = oneName(rest);
  const store = storeOf(values);
  const timeout = values.timeout === undefined ? undefined : milliseconds(values.timeout);
  const deadline = timeout === undefined ? undefined : AbortSignal.timeout(timeout);
  const log = new Log({ quiet: values.quiet }, name);

  let found = await lookUp(store, name);
  if (found.state === "unknown") return notAllowed(found);
  if (found.state === "held" && timeout !== 0) {
    const holder = async () => (await store.status(name)).holder ?? null;
    using _line = showWaiting({ name, holder }, values.timeout, log);
    try {
      found = await untilFree(store, found, deadline);
    } catch (error) {
      if (error instanceof LockFileError && error.code === "EACCES") return notAllowed(found);
      throw error;
    }
  }
  if (values.json) print(jsonLine({ ...new Describer().describe(found), waited: log.elapsed }));
  if (found.state === "free") return EXIT.OK;
  log.tell("refused", {}, () => {
    return `gave up after ${log.elapsed} s: '${printable(name)}' is held${byWhom(found.holder)}`;
  });
  return EXIT.TEMPORARY_FAILURE;
}

/** Another user's lock file, made so that nobody else can read it: there is no way to wait in its queue. */
function notAllowed({ name, state, lockfile }: LockStatus): number {
  const held = state === "held" ? " is held, but" : ":";
  complain(`'${printable(name)}'${held} we may not read ${printable(lockfile)}, and so cannot wait for it`);
  return EXIT.NO_PERMISSION;
}

/** @returns what is known at the end: that it is free, or who holds it when the time has run out */
async function untilFree(
  store: Store,
  lock: LockStatus,
  deadline: AbortSignal | undefined,
): Promise<LockStatus> {
  const { name, lockfile } = lock;
  try {
    for (let found = lock; found.slots !== undefined; found = await lookUp(store, name)) {
      for (const slot of found.slots) await store.waitFree(slot.name, deadline);
    }
    if (lock.slots === undefined) await store.waitFree(name, deadline);
    return { name, state: "free", lockfile };
  } catch (error) {
    if (!deadline?.aborted) throw error;
    return lookUp(store, name);
  }
}
