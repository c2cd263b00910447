/** What was said and the server isn't known to answer: in order, bounded, and kept through reloads. Pure. */

import type { NewItem } from "./wire.js";

/**
 * What an entry is: a message; another answer to one that was answered before; a decision on a call that needs
 * approval; what functions returned.
 */
export type EntryKind = "message" | "retry" | "decision" | "outputs";

/** What waits to be sent, or is on its way. It is plain data, to be kept as JSON. */
export interface Entry {
  /** Of the turn that it begins or goes on with. */
  readonly id: string;
  readonly kind: EntryKind;
  /** The item that it is about: the message, or the request for approval. */
  readonly about: string;
  /** What it adds to the conversation. The server takes each id once. */
  readonly items: readonly NewItem[];
  /** Of an answer: what to remove first. */
  readonly drop: readonly string[];
  /** Names the wish for an answer. */
  readonly request: string;
  /** What it was named before: under these the server may still get it, by a line that was thought dead. */
  readonly former: readonly string[];
  /** Whether the server may have it. */
  readonly sent: boolean;
  /** The items that the server is known to have. */
  readonly taken: readonly string[];
  /** Why the server didn't take it yet, for people. */
  readonly late?: string;
  /** Whatever who sent it wants to have back with it. */
  readonly note?: unknown;
}

type Mutable<T> = { -readonly [field in keyof T]: T[field] };

/** An entry as its outbox changes it. */
export type OwnEntry = Mutable<Entry>;

/** Whether the server has all that the entry adds. */
export function isTaken({ items, taken }: Entry): boolean {
  return items.every(({ id }) => taken.includes(id));
}

export class Outbox {
  /** *changed* is called whenever it has to be kept anew. */
  constructor(entries: readonly Entry[], changed: () => void) {
    this.#entries = entries.map((entry) => ({ ...entry }));
    this.#changed = changed;
  }

  #entries: OwnEntry[];
  readonly #changed: () => void;

  /** The oldest entry: the only one that is ever sent. */
  get first(): OwnEntry | undefined {
    return this.#entries[0];
  }

  get size(): number {
    return this.#entries.length;
  }

  [Symbol.iterator](): Iterator<OwnEntry> {
    return [...this.#entries][Symbol.iterator]();
  }

  find(test: (entry: OwnEntry) => boolean): OwnEntry | undefined {
    return this.#entries.find(test);
  }

  add(entry: Entry): void {
    this.#entries.push({ ...entry });
    this.#changed();
  }

  /** Put it before all others: it goes on with a turn that they wait for. */
  addFirst(entry: Entry): void {
    this.#entries.unshift({ ...entry });
    this.#changed();
  }

  change(entry: OwnEntry, change: Partial<OwnEntry>): void {
    Object.assign(entry, change);
    this.#changed();
  }

  remove(entry: OwnEntry): void {
    this.#entries = this.#entries.filter((each) => each !== entry);
    this.#changed();
  }

  /** Its entries as they are now. */
  copy(): Entry[] {
    return this.#entries.map((entry) => ({ ...entry }));
  }
}
