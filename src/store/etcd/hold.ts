/** One contender's key for a lock, and the lease that the key lives on. */
import { StoreError } from "../../errors.ts";
import { acquiredNow, encodeRecord, type HolderRecord } from "../../holder.ts";
import { base64, type Gateway, type RangeResponse, withPrefix } from "./gateway.ts";

interface TxnResponse {
  header: { revision: string };
  succeeded?: boolean;
  responses?: { response_range?: RangeResponse }[];
}

/** A sort order of ranges: the oldest key first. */
export const OLDEST_FIRST = { sort_target: "CREATE", sort_order: "ASCEND" };

export class Hold {
  /** The revision that created the key. */
  revision: string | undefined;
  readonly #key: string;
  readonly #released = new AbortController();
  #watching = false;

  /**
   * @param keys the prefix of all contenders' keys
   * @param id the lease's id
   */
  constructor(
    private readonly gateway: Gateway,
    private readonly keys: string,
    readonly id: string,
    private readonly record: HolderRecord,
  ) {
    // The lock service names the key the same way: the lease's id in hexadecimal.
    this.#key = base64(keys + BigInt.asUintN(64, BigInt(id)).toString(16));
  }

  /**
   * Creates the key.
   * @param queue also where there are other keys: that is a place in the queue
   * @returns true if the key is the oldest, and so owns the lock
   */
  async take(queue: boolean, signal: AbortSignal): Promise<boolean> {
    const range = withPrefix(this.keys);
    const find = { request_range: { ...range, ...OLDEST_FIRST } };
    const put = { request_put: this.#put() };
    const answer = await this.#txn(
      // Compares each key of the range, and no key was created at revision 0. So it holds only for an empty range.
      { ...range, target: "CREATE", result: "EQUAL", create_revision: "0" },
      [put, find],
      queue ? [put, find] : [find],
      signal,
    );
    const kvs = answer.responses?.at(-1)?.response_range?.kvs ?? [];
    this.revision = kvs.find(({ key }) => key === this.#key)?.create_revision;
    // The comparison is no measure of success: a request that is repeated after a lost answer finds its own key.
    return kvs[0]?.key === this.#key;
  }

  /** Writes the record of a holder. @returns true if the key still exists and is the oldest */
  async confirm(signal: AbortSignal): Promise<boolean> {
    Object.assign(this.record, acquiredNow());
    const find = { request_range: { ...withPrefix(this.keys), ...OLDEST_FIRST, limit: "1" } };
    const answer = await this.#ifOurs([{ request_put: this.#put() }, find], signal);
    return answer.responses?.at(-1)?.response_range?.kvs?.[0]?.key === this.#key;
  }

  /**
   * Renews the lease.
   * @param limit the time for one endpoint, in milliseconds
   * @returns true if the lease lives, and so does the key that was created
   */
  async renew(signal: AbortSignal, limit: number): Promise<boolean> {
    const [kept, found] = await Promise.all([
      this.gateway.call<{ TTL?: string }>("lease/keepalive", { ID: this.id }, signal, limit),
      this.revision === undefined
        ? undefined
        : this.gateway.call<RangeResponse>("kv/range", { key: this.#key }, signal, limit),
    ]);
    return (
      Number(kept?.TTL ?? 0) > 0 &&
      (this.revision === undefined || found?.kvs?.[0]?.create_revision === this.revision)
    );
  }

  /** Calls back when the key is deleted. A repeated call restarts a watch that etcd has ended. */
  watch(deleted: () => void): void {
    if (this.#watching) return;
    this.#watching = true;
    const report = () => {
      if (!this.#released.signal.aborted) deleted();
      return false;
    };
    this.gateway
      .watchDeletion({ key: this.#key }, this.revision!, report, this.#released.signal)
      .catch(() => {})
      .finally(() => {
        this.#watching = false;
      });
  }

  recordCommand(pid: number, until?: string): void {
    Object.assign(this.record, { command: pid, until });
    // Informational: the lock does not depend on it.
    this.#ifOurs([{ request_put: this.#put() }], this.#released.signal).catch(() => {});
  }

  /** Revokes the lease, which deletes the key. */
  async release(signal: AbortSignal): Promise<void> {
    this.#released.abort();
    await this.gateway.call("lease/revoke", { ID: this.id }, signal);
  }

  #put() {
    return {
      key: this.#key,
      value: Buffer.from(encodeRecord(this.record)).toString("base64"),
      lease: this.id,
    };
  }

  /** A transaction on condition that the key is the one that was created. */
  #ifOurs(success: object[], signal: AbortSignal): Promise<TxnResponse> {
    const compare = { key: this.#key, target: "CREATE", result: "EQUAL", create_revision: this.revision };
    return this.#txn(compare, success, [], signal);
  }

  async #txn(
    compare: object,
    success: object[],
    failure: object[],
    signal: AbortSignal,
  ): Promise<TxnResponse> {
    const body = { compare: [compare], success, failure };
    const answer = await this.gateway.call<TxnResponse>("kv/txn", body, signal);
    if (answer === undefined) throw new StoreError("the lease has ended");
    return answer;
  }
}
