/** What the server has refused for good: given back to the user, or shown until it can be. */

/** @typedef {import("./client/lib/index.js").Entry} Entry */

/** Messages that are kept to be given back. Older ones are still shown. */
const MOST = 20;

export class Rejections {
  /** @param {import("./conversation.js").View} view @param {import("./calls.js").Calls} calls */
  constructor(view, calls) {
    this.#view = view;
    this.#calls = calls;
  }

  #view;
  #calls;
  /** @type {Entry[]} */
  #kept = [];

  /** @param {Entry} entry */
  add(entry) {
    const { kind, about } = entry;
    if (kind === "decision") {
      const call = this.#calls.get(about);
      if (call !== undefined) this.#view.call(about, call); // it can be decided again
    } else if (this.#view.giveBack(said(entry))) {
      this.#view.remove(about);
    } else {
      this.#kept = [...this.#kept, entry].slice(-MOST);
      this.#view.message(about, said(entry).text, "refused");
    }
  }

  /** @param {string} id Give that message back, to be changed. */
  takeBack(id) {
    const entry = this.#kept.find(({ about }) => about === id);
    if (entry === undefined) return;
    if (!this.#view.giveBack(said(entry))) return this.#view.notice("Send or remove first what you have begun to write.");
    this.#kept = this.#kept.filter((each) => each !== entry);
    this.#view.remove(id);
  }

  clear() {
    this.#kept = [];
  }
}

/** @param {Entry} entry @returns {import("./message.js").Message} */
function said({ note }) {
  return /** @type {import("./message.js").Message} */ (note);
}
