/** Shows what was said and waits, or is on its way; what the server refuses for good is given back. */

import { Rejections } from "./rejections.js";

/** @typedef {import("./client/lib/index.js").Entry} Entry */
/** @typedef {import("./client/lib/index.js").ServerError} ServerError */

/** Said of a decision that somebody has taken already: the line shows it. */
const ANSWERED = "approval_answered";
/** Said of what can't be answered anywhere else, when its session has ended: that is shown, too. */
const LOST = "session_lost";

export class Unsent {
  /**
   * @param {import("./conversation.js").View} view
   * @param {import("./calls.js").Calls} calls What decisions are about.
   */
  constructor(view, calls) {
    this.#view = view;
    this.#calls = calls;
    this.#rejections = new Rejections(view, calls);
  }

  #view;
  #calls;
  #rejections;
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  /** Whether all of it is being left behind. */
  #isLeaving = false;

  get isEmpty() {
    return this.#entries.size === 0;
  }

  /** @param {string} request @returns {Entry | undefined} The decision on it that is on its way. */
  decision(request) {
    return [...this.#entries.values()].find(({ kind, about }) => kind === "decision" && about === request);
  }

  /** @param {import("./client/lib/index.js").ClientEvents["entry"]} change */
  take({ entry, stage, error }) {
    this.#entries.delete(entry.id);
    switch (stage) {
      case "refused":
        return this.#refuse(entry, error);
      case "withdrawn":
        // What is taken back while the server refuses it for the moment may be wanted back.
        if (this.#isLeaving || !entry.sent) this.#view.remove(entry.about);
        else if (isTaken(entry)) this.#settle(entry);
        else this.#rejections.add(entry);
        return;
      case "answered":
        return this.#settle(entry);
      default:
        this.#entries.set(entry.id, entry);
        if (stage !== "taken") this.#show(entry, stage); // else the log has shown it
    }
  }

  /** The session has ended: show no more what it had. */
  leave() {
    for (const entry of this.#entries.values()) if (isTaken(entry)) this.#view.remove(entry.about);
  }

  /** @param {() => void} begin Leaves all of it behind. */
  clear(begin) {
    this.#rejections.clear();
    this.#isLeaving = true;
    begin();
    this.#isLeaving = false;
  }

  /** @param {string} id Have a message that was refused back, to change it. */
  takeBack(id) {
    this.#rejections.takeBack(id);
  }

  /** @param {Entry} entry @param {ServerError} [error] */
  #refuse(entry, error) {
    if (error === undefined || error.code === LOST) return;
    if (isTaken(entry)) this.#settle(entry);
    else this.#rejections.add(entry);
    if (error.code !== ANSWERED) this.#view.notice(error.message);
  }

  /** @param {Entry} entry It waits no more. */
  #settle({ kind, about, late, note }) {
    if (late === undefined) return; // it wasn't shown as waiting
    if (kind !== "decision") return this.#view.message(about, /** @type {any} */ (note).text, "sent");
    const call = this.#calls.get(about);
    if (call !== undefined) this.#view.call(about, call);
  }

  /** @param {Entry} entry @param {"queued" | "sending" | "waiting"} stage */
  #show(entry, stage) {
    const { kind, about, note, late } = entry;
    if (kind === "decision") {
      const call = this.#calls.get(about);
      // After a reload, the log has yet to tell what was asked.
      if (call !== undefined) this.#view.call(about, ...decisionShown(entry, call));
      return;
    }
    const { text, files } = /** @type {import("./message.js").Message} */ (note);
    this.#view.message(about, text, stage, undefined, files, late);
  }
}

/** @param {Entry} entry @returns {boolean} Whether the server has all of it. */
function isTaken({ items, taken }) {
  return items.every(({ id }) => taken.includes(id));
}

/**
 * @param {Entry} entry A decision that is on its way.
 * @param {import("./calls.js").Call} call What it is about.
 * @returns {[import("./calls.js").Call, {delivery: string}]} How the call is shown until it is there.
 */
export function decisionShown({ items, sent, late }, call) {
  const isAllowed = items.some((item) => item.type === "mcp_approval_response" && item.approve);
  const state = isAllowed ? "allowed" : "refused";
  return [{ ...call, state }, { delivery: late ?? (sent ? "Sending" : "Waits to be sent") }];
}
