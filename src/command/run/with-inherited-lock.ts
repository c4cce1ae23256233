/** `exclusive run --inherit`: run the command under a lock that this process runs under already. */
import { execInto, start } from "../../os/spawn.ts";
import { FileStore } from "../../store/file/file-store.ts";
import { inherited } from "../../store/inheritance.ts";
import { LazyStore } from "../../store/lazy-store.ts";
import { cannotStart } from "./cannot-start.ts";
import type { RunPlan } from "./run-plan.ts";
import { exitLike, supervise } from "./supervise.ts";

/**
 * Runs the command and ends as it ended, where this process has inherited the lock, as `exclusive held` proves; else
 * returns. The command inherits the lock's descriptor as it inherits all others.
 * @throws {CommandError} when the command cannot be started
 */
export async function runIfInherited({ argv, request, store: where, exec }: RunPlan): Promise<void> {
  const store = "url" in where ? new LazyStore(where.url, { ttl: where.ttl }) : new FileStore(where);
  const how = await inherited(store, request.name);
  if (how !== "exclusive" && (how !== "shared" || request.mode !== "shared")) return;
  const env = { EXCLUSIVE_NAME: request.name, EXCLUSIVE_LOCKFILE: store.location(request.name) };
  const command = { argv, env, lockFd: -1 };
  if (exec) throw cannotStart(argv[0]!, execInto(command).failure);
  const { pid, failure } = start(command);
  if (failure !== undefined) throw cannotStart(argv[0]!, failure);
  exitLike(supervise(pid));
}
