/**
 * `exclusive wait`: wait until a lock is free.
 *
 * It waits in the kernel's queue as if it wanted the lock, and releases the lock as soon as it has it
 * (`FileStore.waitFree`). No other process is refused because of it, and no lock file is made. The lock was free at
 * that instant only: it may be held again when the next command runs. To take it, use `run --wait`.
 */
import { defineCommand } from "citty";
import { humanDuration, milliseconds } from "../duration.ts";
import { LockFileError, printable, StoreError } from "../errors.ts";
import { endlessWait } from "../store/inheritance.ts";
import { statusWithSlots } from "../store/look-up.ts";
import { Outage } from "../store/outage.ts";
import type { LockStatus, Store } from "../store/store.ts";
import { Deadline, limited } from "../store/time-limit.ts";
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

/** The least time for a look, in milliseconds. */
const LOOK_MS = 1000;

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
  using deadline = timeout === undefined ? undefined : new Deadline(timeout);
  const log = new EventLog({ quiet: values.quiet }, name);

  const outage = new Outage((notice) => values.quiet || printError(notice));
  let found: LockStatus | undefined;
  while (found === undefined)
    found = await look(store, name, timeout).catch(async (error) => {
      await outage.wait(error, deadline?.signal);
      return undefined;
    });
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
      found = await untilFree(store, found, deadline?.signal);
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
    return look(store, name, 0);
  }
}

/** A look at the lock that takes about as long as the wait may take, but has time for an answer. */
async function look(store: Store, name: string, limit: number | undefined): Promise<LockStatus> {
  const ask = () => statusWithSlots(store, name);
  if (limit === undefined) return ask();
  return limited(Math.max(limit, LOOK_MS), ask).catch((error: Error) => {
    if (error.name !== "TimeoutError") throw error;
    throw new StoreError(`${store.location(name)}: no answer in time`, { temporary: true });
  });
}
