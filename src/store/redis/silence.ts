/** Tells a second hold whose holder is gone from one that is renewed. It has no time to live. */
import { clock } from "../../os/clock.ts";

/** Why a lock was not taken, and the milliseconds until it is worth to ask again. */
export interface Refusal {
  /** `silent`: the lease has ended by the server's clock, and a renewal may still come. */
  state: "held" | "silent" | "unsure";
  left: number;
}

/** The part of a lease in which a holder renews it, or has lost it. */
const RENEWED_WITHIN = 2 / 3;

/** What a newcomer has seen of a hold. It is measured on the newcomer's own clock, because the server's can be set. */
export class Silence {
  #ends = "";
  #firstSeen = 0;
  #staleAt = 0;

  constructor(private readonly ttl: number) {}

  /** The end of a lease that may be taken over; "" while there is none. */
  get stale(): string {
    return this.#ends !== "" && clock() >= this.#staleAt ? this.#ends : "";
  }

  /**
   * @param ends of the lease: each renewal changes it
   * @param left of the lease, by the server's clock
   */
  hear(ends: string, left: number): Refusal {
    const now = clock();
    if (this.#ends !== ends) this.#firstSeen = now;
    this.#ends = ends;
    this.#staleAt = this.#firstSeen + this.ttl * (left > 0 ? 1 : RENEWED_WITHIN);
    const silence = Math.max(1, this.#staleAt - now);
    return left > 0 ? { state: "held", left: Math.min(left, silence) } : { state: "silent", left: silence };
  }
}
