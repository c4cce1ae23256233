/** The URL of a remote store, with and without its secrets. */
import { printable, WrongArgument } from "../errors.ts";

/** SCHEME://USER:PASSWORD@REST. A password may contain any character, often `/`; the last `@` ends it. */
const PARTS = /^([a-z][a-z0-9+.-]*):\/\/(?:([^:@]*)(?::(.*))?@)?([^?#]*)/is;

/** A store's URL. All text that is shown passes through here, so that no message, list or log has a password. */
export class StoreUrl {
  /** In lower case. */
  readonly scheme: string;
  /** The URL without password and parameters, for messages. */
  readonly redacted: string;
  readonly #secrets: string[] = [];

  /**
   * @param url the complete URL, as the user gave it; each engine parses it by its own rules
   * @throws {TypeError} for a URL without a scheme
   */
  constructor(readonly url: string) {
    const match = PARTS.exec(url);
    if (match === null)
      throw new WrongArgument("a store is a URL such as redis://HOST:6379 (see docs/stores.md)");
    const [, scheme, user, password, rest] = match;
    this.scheme = scheme!.toLowerCase();
    this.redacted = printable(`${this.scheme}://${user ? `${user}@` : ""}${rest!.replace(/\/+$/, "")}`);
    for (const secret of [password, ...secretParameters(url)]) {
      if (secret) this.#secrets.push(secret, decoded(secret));
    }
  }

  /** The text without this URL's secrets. Messages of clients and servers may quote them. */
  redact(text: string): string {
    let safe = text.replaceAll(this.url, this.redacted);
    for (const secret of this.#secrets) safe = safe.replaceAll(secret, "***");
    return printable(safe);
  }
}

/** Values of the parameters with a secret's name: `?password=…`, `&sslpassword=…`. */
function secretParameters(url: string): string[] {
  return Array.from(
    url.matchAll(/[?&][^=&#]*(?:pass|secret|token)[^=&#]*=([^&#]*)/gi),
    ([, value]) => value!,
  );
}

/** Percent-decoded; unchanged where it is malformed. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
