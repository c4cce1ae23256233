/** What an operator should know of a Redis server. */
import { clockInWords } from "../../duration.ts";

/** @param info the answer to INFO @param time the answer to TIME, in seconds and microseconds */
export function factsOf(info: string, [seconds, micros]: string[]): Record<string, string> {
  const of = (key: string) => new RegExp(`^${key}:(.*?)\\r?$`, "m").exec(info)?.[1] ?? "unknown";
  const policy = of("maxmemory_policy");
  const risk = policy.startsWith("allkeys")
    ? ": it can throw a lock away, both holds of it. Use noeviction, or a server of its own"
    : policy.startsWith("volatile")
      ? ": it can throw the main hold of a lock away; the second one stays, and the command is stopped"
      : "";
  const durable =
    of("aof_enabled") === "1" ? "append-only file" : "off: after a restart the next holder waits one lease";
  const ahead = Number(seconds) * 1000 + Number(micros) / 1000 - Date.now();
  return {
    version: of("redis_version"),
    "eviction policy": `${policy}${risk} (${of("evicted_keys")} keys evicted so far)`,
    persistence: durable,
    replication: `${of("role")} with ${of("connected_slaves")} replicas: they may miss the newest lock (docs/stores.md)`,
    clock: clockInWords(ahead),
    "smallest sensible --ttl": "3s, more than a restart or a failover takes",
  };
}
