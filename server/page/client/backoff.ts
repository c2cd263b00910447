/** How long to wait before something is tried again: longer each time, and not all clients in the same moment. Pure. */

import type { ServerError } from "./wire.js";

/** Milliseconds. Whatever a server asks for, who waits longer looks dead. */
const MOST_ASKED = 300_000;

export class Backoff {
  /**
   * @param least The longest first wait, in milliseconds.
   * @param most The longest of all.
   * @param random As `Math.random`.
   */
  constructor(least: number, most: number, random: () => number) {
    this.#least = least;
    this.#most = most;
    this.#random = random;
  }

  readonly #least: number;
  readonly #most: number;
  readonly #random: () => number;
  #failures = 0;

  /** Count a failure, and return the milliseconds to wait: never less than *error* asks for, and full jitter beyond. */
  next(error?: ServerError | null): number {
    const asked = Number(error?.unbroken?.retry_after) * 1_000;
    const own = this.#random() * Math.min(this.#most, this.#least * 2 ** this.#failures);
    this.#failures += 1;
    return own + (asked > 0 ? Math.min(asked, MOST_ASKED) : 0);
  }

  /** It went well. */
  reset(): void {
    this.#failures = 0;
  }
}
