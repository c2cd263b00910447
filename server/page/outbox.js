/**
 * What a tab has said and the server isn't known to have: kept through reloads, in order.
 */

/**
 * A message on its way, a wish to have the last one answered again, or a decision.
 *
 * @typedef {object} Entry
 * @property {string} id Of the item.
 * @property {string} text
 * @property {import("./attachments.js").Attached[]} [files]
 * @property {string} request Names the wish for an answer.
 * @property {string[]} drop Of an answer: what to remove first.
 * @property {boolean} sent Whether the server may have it.
 * @property {boolean} accepted Whether the server is known to have the item.
 * @property {Approval} [approval] What it decides.
 * @property {string} [late] Why the server didn't take it yet.
 */

/** @typedef {{request: string, approve: boolean}} Approval An answer to the item *request*. */

/** @typedef {{get(name: string): string | null, set(name: string, value: string | null): void}} Storage */

const NAME = "unbroken.outbox";

export class Outbox {
  /** @param {Storage} storage */
  constructor(storage) {
    this.#storage = storage;
    this.#entries = restore(storage.get(NAME));
  }

  #storage;
  /** @type {Entry[]} */
  #entries;

  /** @returns {Entry | undefined} The oldest entry. */
  get first() {
    return this.#entries[0];
  }

  get size() {
    return this.#entries.length;
  }

  [Symbol.iterator]() {
    return this.#entries[Symbol.iterator]();
  }

  /** @param {(entry: Entry) => boolean} test @returns {Entry | undefined} */
  find(test) {
    return this.#entries.find(test);
  }

  /** @param {Entry} entry */
  add(entry) {
    this.#entries.push(entry);
    this.save();
  }

  /** @param {Entry} entry */
  remove(entry) {
    this.#entries = this.#entries.filter((each) => each !== entry);
    this.save();
  }

  clear() {
    this.#entries = [];
    this.save();
  }

  /** Entries are changed in place; this makes it last. */
  save() {
    this.#storage.set(NAME, this.#entries.length > 0 ? JSON.stringify(this.#entries) : null);
  }
}

/** @param {string | null} saved @returns {Entry[]} */
function restore(saved) {
  try {
    /** @type {any[]} */
    const entries = saved === null ? [] : JSON.parse(saved);
    // Pages of before named one item to drop, or null.
    return entries.map((entry) => ({ ...entry, drop: [entry.drop ?? []].flat() }));
  } catch {
    return [];
  }
}
