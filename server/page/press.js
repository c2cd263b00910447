/**
 * A button under somebody's finger: while it is pressed, what is around it may not move.
 *
 * A press is a click only if it ends on the button where it began. Text that grows by a line in between would move the
 * button away, and nothing would happen, or something else.
 */

/** Milliseconds that a press is waited for. */
const LONGEST = 3_000;

export class Press {
  /**
   * @param {HTMLElement} root Whose buttons it is about.
   * @param {() => void} ended Called after each press.
   */
  constructor(root, ended) {
    this.#ended = ended;
    root.addEventListener("pointerdown", ({ target }) => {
      if (target instanceof Element && target.closest("button") !== null) this.#begin();
    });
    for (const end of ["pointerup", "pointercancel", "blur"]) addEventListener(end, () => this.#end());
  }

  #ended;
  /** @type {number | undefined} */
  #bound;

  /** Whether a button is pressed. */
  get isOn() {
    return this.#bound !== undefined;
  }

  #begin() {
    clearTimeout(this.#bound);
    this.#bound = setTimeout(() => this.#end(), LONGEST);
  }

  #end() {
    if (!this.isOn) return;
    clearTimeout(this.#bound);
    this.#bound = undefined;
    this.#ended();
  }
}
