/** The hosts in a URL of PostgreSQL, as libpq has them: `postgres://USER@A:5432,B/DATABASE?target_session_attrs=read-write`. */
import { WrongArgument } from "../../errors.ts";
import type { StoreUrl } from "../store-url.ts";

const SHAPE = /^([a-z]+:\/\/(?:.*@)?)([^/?#@]*)(.*)$/is;

/**
 * The URL for each host.
 * @throws {TypeError} for a malformed URL, or one that asks for a standby
 */
export function hostsOf(url: StoreUrl): string[] {
  const [, head = "", hosts = "", tail = ""] = SHAPE.exec(url.url) ?? [];
  return hosts.split(",").map((host) => {
    if (!URL.canParse(head + host + tail)) throw new WrongArgument(`not a URL: ${url.redacted}`);
    const parsed = new URL(head + host + tail);
    const target = parsed.searchParams.get("target_session_attrs");
    if (target !== null && !["any", "read-write", "primary"].includes(target))
      throw new WrongArgument(
        `${url.redacted}: locks need the primary server, not target_session_attrs=${target}`,
      );
    parsed.searchParams.delete("target_session_attrs");
    return parsed.href;
  });
}
