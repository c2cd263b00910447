/** How long to wait before something is tried again: longer each time, and not all pages in the same moment. */

/** Milliseconds. Whatever a server asks for, a page that waits longer looks dead. */
const MOST_ASKED = 300_000;

export class Backoff {
  /** @param {number} least @param {number} most Milliseconds: the longest first wait, and the longest of all. */
  constructor(least, most) {
    this.#least = least;
    this.#most = most;
  }

  #least;
  #most;
  #failures = 0;

  /**
   * Count a failure.
   *
   * @param {any} [error] What the server said; it may ask for so many seconds, in `unbroken.retry_after`.
   * @returns {number} Milliseconds to wait, never less than was asked for. With full jitter beyond that.
   */
  next(error) {
    const asked = Number(error?.unbroken?.retry_after) * 1_000;
    const own = Math.random() * Math.min(this.#most, this.#least * 2 ** this.#failures);
    this.#failures += 1;
    return own + (asked > 0 ? Math.min(asked, MOST_ASKED) : 0);
  }

  /** It went well. */
  reset() {
    this.#failures = 0;
  }
}
