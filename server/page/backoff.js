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

/** A pause after a refusal, by whoever goes on trying. */
export class Pause {
  /** @param {number} least @param {number} most As of a backoff. @param {() => void} due Called when it is over. */
  constructor(least, most, due) {
    this.#backoff = new Backoff(least, most);
    this.#due = due;
  }

  #backoff;
  #due;
  /** @type {ReturnType<typeof setTimeout> | null} */
  #timer = null;

  get isOn() {
    return this.#timer !== null;
  }

  /** @param {any} error What the server said. In a pause, it is heard no more. */
  begin(error) {
    if (this.isOn) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#due();
    }, this.#backoff.next(error));
  }

  /** Without having been due. */
  end() {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** It went well: the next pause is a short one. */
  reset() {
    this.#backoff.reset();
  }
}
