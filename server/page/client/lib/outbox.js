/** What was said and the server isn't known to answer: in order, bounded, and kept through reloads. Pure. */
/** Whether the server has all that the entry adds. */
export function isTaken({ items, taken }) {
    return items.every(({ id }) => taken.includes(id));
}
export class Outbox {
    /** *changed* is called whenever it has to be kept anew. */
    constructor(entries, changed) {
        this.#entries = entries.map((entry) => ({ ...entry }));
        this.#changed = changed;
    }
    #entries;
    #changed;
    /** The oldest entry: the only one that is ever sent. */
    get first() {
        return this.#entries[0];
    }
    get size() {
        return this.#entries.length;
    }
    [Symbol.iterator]() {
        return [...this.#entries][Symbol.iterator]();
    }
    find(test) {
        return this.#entries.find(test);
    }
    add(entry) {
        this.#entries.push({ ...entry });
        this.#changed();
    }
    /** Put it before all others: it goes on with a turn that they wait for. */
    addFirst(entry) {
        this.#entries.unshift({ ...entry });
        this.#changed();
    }
    change(entry, change) {
        Object.assign(entry, change);
        this.#changed();
    }
    remove(entry) {
        this.#entries = this.#entries.filter((each) => each !== entry);
        this.#changed();
    }
    /** Its entries as they are now. */
    copy() {
        return this.#entries.map((entry) => ({ ...entry }));
    }
}
