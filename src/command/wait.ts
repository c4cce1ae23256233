/**
 * `exclusive wait`: wait until a lock is free.
 *
 * It waits in the kernel's queue as if it wanted the lock, and releases the lock as soon as it has it
 * (`FileStore.waitFree`). No other process is refused because of it, and no lock file is made. The lock was free at
 * that instant only: it may be held again when the next command runs. To take it, use `run --wait`.
 */
import { defineCommand } from "citty";
import { humanDuration, milliseconds } from "../duration.ts";
import { LockFileError, printable } from "../errors.ts";
import { endlessWait } from "../store/inheritance.ts";
import { statusWithSlots } from "../store/look-up.ts";
import type { LockStatus, Store } from "../store/store.ts";
import { defineArgs } from "./cli/define.ts";
import { EXIT, UsageError } from "./cli/exit-status.ts";
import { LOCATION, NAME, openStoreOf, requireName } from "./cli/lock-options.ts";
import { parseOptions } from "./cli/options.ts";
import { describeHolder } from "./output/describe-holder.ts";
import { Describer } from "./output/describe-processes.ts";
import { EventLog } from "./output/event-log.ts";
import { jsonLine, print, printError } from "./output/print.ts";
import { showWaiting } from "./output/wait-line.ts";
import { BARE_DURATION } from "./run/operands.ts";

const ARGS = defineArgs({
  ...NAME,
  timeout: {
    type: "string",
    alias: "t",
    valueHint: "DURATION",
    description: "wait up to DURATION (0: don't wait)",
  },
  quiet: { type: "boolean", alias: "q", description: "no messages except errors" },
  json: {
    type: "boolean",
    description: "print one JSON object: the lock's status, and the seconds waited",
  },
  ...LOCATION,
});

export default defineCommand({
  meta: {
    name: "wait",
    description: "wait until a lock is free",
    examples: [
      ["wait backup", "until no process holds it"],
      ["wait -t 10m backup && ./report.sh", "for 10 minutes at most"],
    ],
    notes: [
      "Exit status: 0 free, 75 timed out, 77 no permission to wait",
      "Environment: EXCLUSIVE_DIR, EXCLUSIVE_STORE",
    ],
  },
  args: ARGS,
  run: ({ rawArgs }) => wait(rawArgs),
});

async function wait(rawArgs: string[]): Promise<number> {
  const { values, rest } = parseOptions(rawArgs, ARGS);
  if (rest.length === 2 && BARE_DURATION.test(rest[1]!))
    throw new UsageError(`one NAME at a time (did you mean --timeout ${rest[1]}?)`);
  const name = requireName(rest);
  const store = openStoreOf(values);
  const timeout = values.timeout === undefined ? undefined : milliseconds(values.timeout);
  const deadline = timeout === undefined ? undefined : AbortSignal.timeout(timeout);
  const log = new EventLog({ quiet: values.quiet }, name);

  let found = await statusWithSlots(store, name);
  if (found.state === "unknown") return notAllowed(found);
  if (found.state === "held" && timeout !== 0) {
    const endless = await endlessWait(store, name, found.slots?.map((slot) => slot.name) ?? [name], true);
    if (endless !== undefined) {
      printError(endless.reason);
      return EXIT.TEMPORARY_FAILURE;
    }
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
  if (!values.quiet)
    printError(
      `timed out after ${humanDuration(log.elapsed * 1000)}: '${printable(name)}' is held${describeHolder(found.holder)}`,
    );
  return EXIT.TEMPORARY_FAILURE;
}

/** Reports another user's lock file that cannot be read: without opening it there is no way into its queue. */
function notAllowed({ name, state, lockfile }: LockStatus): number {
  const held = state === "held" ? " (held)" : "";
  printError(`cannot wait for '${printable(name)}'${held}: no permission to read ${printable(lockfile)}`);
  return EXIT.NO_PERMISSION;
}

/** Returns the last status: free, or that of the holder when the time has run out. */
async function untilFree(
  store: Store,
  lock: LockStatus,
  deadline: AbortSignal | undefined,
): Promise<LockStatus> {
  const { name, lockfile } = lock;
  try {
    for (let found = lock; found.slots !== undefined; found = await statusWithSlots(store, name)) {
      for (const slot of found.slots) await store.waitFree(slot.name, deadline);
    }
    if (lock.slots === undefined) await store.waitFree(name, deadline);
    return { name, state: "free", lockfile };
  } catch (error) {
    if (!deadline?.aborted) throw error;
    return statusWithSlots(store, name);
  }
}
