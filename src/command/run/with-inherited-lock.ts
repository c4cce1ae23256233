/** `exclusive run --inherit`: run the command under a lock that this process runs under already. */
import { adoptDescendants } from "../../os/child-process.ts";
import { exit } from "../../os/signals.ts";
import { execInto, start } from "../../os/spawn.ts";
import { FileStore } from "../../store/file/file-store.ts";
import { inherited } from "../../store/inheritance.ts";
import { LazyStore } from "../../store/lazy-store.ts";
import { EXIT } from "../cli/exit-status.ts";
import type { EventLog } from "../output/event-log.ts";
import { cannotStart } from "./cannot-start.ts";
import { superviseFor } from "./max-runtime.ts";
import type { RunPlan } from "./run-plan.ts";
import { exitLike } from "./supervise.ts";

/**
 * Runs the command and ends as it ended, where this process has inherited the lock, as `exclusive held` proves; else
 * returns. The command inherits the lock's descriptor as it inherits all others.
 * @throws {CommandError} when the command cannot be started
 */
export async function runIfInherited(plan: RunPlan, log: EventLog): Promise<void> {
  const { argv, request, store: where, exec, limit } = plan;
  const store = "url" in where ? new LazyStore(where.url, { ttl: where.ttl }) : new FileStore(where);
  const how = await inherited(store, request.name);
  if (how !== "exclusive" && (how !== "shared" || request.mode !== "shared")) return;
  const env = { EXCLUSIVE_NAME: request.name, EXCLUSIVE_LOCKFILE: store.location(request.name) };
  const command = { argv, env, lockFd: -1 };
  if (exec) throw cannotStart(argv[0]!, execInto(command).failure);
  if (limit !== undefined) adoptDescendants();
  const { pid, failure } = start(command);
  if (failure !== undefined) throw cannotStart(argv[0]!, failure);
  const { ending, overran } = superviseFor(pid, limit, log, {});
  if (overran) exit(EXIT.OVERRAN);
  exitLike(ending);
}
