/** The URL of a store, with and without its secrets. */
import { printable } from "../errors.ts";

/** Whatever follows `SCHEME://`. A password may hold any character that is no `@`, and some do hold `/`. */
const PARTS = /^([a-z][a-z0-9+.-]*):\/\/(?:([^:@]*)(?::(.*))?@)?([^?#]*)/is;

/**
 * A store's URL. Text that is shown to anybody goes through here: a password stands in no message, list or log.
 */
export class Address {
  readonly scheme: string;
  /** The URL without password and parameters: what is shown. */
  readonly shown: string;
  readonly #secrets: string[] = [];

  /**
   * @param url as it was given: an engine reads it by its own rules
   * @throws {TypeError} when it has no scheme
   */
  constructor(readonly url: string) {
    const match = PARTS.exec(url);
    if (match === null)
      throw new TypeError("a store is a URL such as redis://HOST:6379 (see docs/stores.md)");
    const [, scheme, user, password, rest] = match;
    this.scheme = scheme!.toLowerCase();
    this.shown = printable(`${this.scheme}://${user ? `${user}@` : ""}${rest!.replace(/\/+$/, "")}`);
    for (const secret of [password, ...secretParameters(url)]) {
      if (secret) this.#secrets.push(secret, decoded(secret));
    }
  }

  /** The text without the secrets of this URL: for messages of clients and servers that may quote them. */
  hide(text: string): string {
    let safe = text.replaceAll(this.url, this.shown);
    for (const secret of this.#secrets) safe = safe.replaceAll(secret, "***");
    return printable(safe);
  }
}

/** Values of parameters whose name says that they are secret: `?password=…`, `&sslpassword=…`. */
function secretParameters(url: string): string[] {
  return Array.from(
    url.matchAll(/[?&][^=&#]*(?:pass|secret|token)[^=&#]*=([^&#]*)/gi),
    ([, value]) => value!,
  );
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
