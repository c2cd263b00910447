/**
 * What was said in a session, read from the server's events and shown: messages, answers, calls.
 *
 * It knows what runs and what was said last, and sends nothing.
 */

import { isCall } from "./calls.js";
import { LOST, outcomeOf, outcomeOfItem } from "./outcome.js";
import { read } from "./message.js";
import { decisionShown } from "./unsent.js";

/** @type {{id: string, text: string, files: import("./attachments.js").Attached[]}} */
const NOTHING = { id: "", text: "", files: [] };

export class Transcript {
  /**
   * @param {object} options
   * @param {import("./conversation.js").View} options.view
   * @param {import("./calls.js").Calls} options.calls
   * @param {import("./unsent.js").Unsent} options.unsent Knows which decisions are on their way.
   */
  constructor({ view, calls, unsent }) {
    this.#view = view;
    this.#calls = calls;
    this.#unsent = unsent;
  }

  #view;
  #calls;
  #unsent;
  /** @type {Map<string, Set<string>>} Responses in progress, each with the items that are its output so far. */
  #running = new Map();
  /** The last message of a user: what a retry is about. */
  #asked = NOTHING;
  /** Whether that was in this session. */
  #hasAsked = false;
  /** @type {string[]} Its answer. Messages alone: what was called has happened, and the model is to know. */
  #answer = [];

  /** @returns {{id: string, text: string, files: import("./attachments.js").Attached[], drop: string[] | null} | null}
   *   The last message, and what of its answer is to be removed before another; null: that was another session's. */
  get asked() {
    if (this.#asked.id === "") return null;
    return { ...this.#asked, drop: this.#hasAsked ? [...this.#answer] : null };
  }

  /** @param {any} event */
  take(event) {
    this.#handlers[event.type]?.(event);
  }

  /** The server has lost the session. */
  lose() {
    for (const id of this.#running.keys()) this.#view.finish(id, LOST);
    for (const { id, call } of this.#calls.lost()) this.#view.call(id, call);
  }

  /** Another session begins, or this one is told anew. */
  reset() {
    this.#running.clear();
    this.#calls.clear();
    this.#answer = [];
    this.#hasAsked = false;
  }

  /** There is nothing to be answered again. */
  forget() {
    this.reset();
    this.#asked = NOTHING;
  }

  /** @type {Record<string, (event: any) => void>} */
  #handlers = {
    "conversation.item.added": ({ item, previous_item_id: previous }) => {
      if (item.role === "user") this.#heard(item, previous);
      else if (item.role === "assistant") this.#view.place(item.id, item.id, previous);
      else if (!isCall(item)) this.#view.mark(item.id, previous);
      const change = this.#calls.note(item, false);
      this.#called(change, change?.id === item.id ? { previous } : {}); // else it is about another item
    },
    "conversation.item.done": ({ item }) => {
      if (isCall(item)) this.#called(this.#calls.note(item, true));
      if (item.role !== "assistant") return;
      const isOwn = [...this.#running.values()].some((items) => items.has(item.id));
      this.#view.settle(item.id, item.content[0]?.text ?? "");
      this.#answer.push(item.id);
      // Of a response whose end isn't told again: it is from before what the log holds.
      if (!isOwn) this.#view.finish(item.id, outcomeOfItem(item.status));
    },
    "conversation.item.deleted": ({ item_id: id }) => {
      this.#calls.forget(id);
      this.#view.remove(id);
    },
    "response.created": ({ response }) => {
      if (response.conversation_id === undefined) return; // beside the conversation, or over already
      this.#running.set(response.id, new Set());
      this.#answer = [];
      this.#view.begin(response.id);
    },
    "response.output_item.added": ({ response_id: id, item }) => {
      const items = this.#running.get(id);
      if (items === undefined) return;
      items.add(item.id);
      if (item.type === "message") this.#view.place(id, item.id);
      else this.#called(this.#calls.note(item, false), { response: id });
    },
    "response.mcp_call_arguments.done": ({ item_id: id, arguments: args }) => {
      this.#called(this.#calls.change(id, { args }));
    },
    "response.mcp_call.in_progress": ({ item_id: id }) => this.#called(this.#calls.change(id, { state: "running" })),
    "response.output_text.delta": ({ item_id: item, delta }) => this.#view.append(item, delta),
    "response.output_text.done": ({ item_id: item, text }) => this.#view.settle(item, text),
    "response.done": ({ response }) => {
      if (response.conversation_id === undefined) return;
      if (!this.#running.delete(response.id)) this.#view.begin(response.id);
      this.#view.finish(response.id, outcomeOf(response));
    },
  };

  /** @param {any} item @param {string | undefined} previous */
  #heard(item, previous) {
    const { text, files } = read(item.content);
    this.#view.message(item.id, text, "sent", previous, files);
    this.#asked = { id: item.id, text, files };
    this.#answer = [];
    this.#hasAsked = true;
  }

  /**
   * @param {import("./calls.js").Change | null} change
   * @param {{response?: string, previous?: string}} [options]
   */
  #called(change, options) {
    if (change === null) return;
    const { id, call } = change;
    const entry = call.state === "asked" ? this.#unsent.decision(id) : undefined;
    if (entry === undefined) return this.#view.call(id, call, options);
    const [shown, { delivery }] = decisionShown(entry, call);
    this.#view.call(id, shown, { ...options, delivery });
  }
}
