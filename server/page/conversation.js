/**
 * One tab's conversation: what was said, what waits to be sent, what is being answered.
 *
 * It turns what the client tells into calls on a view, and what the user does into calls on the client.
 */

import { Calls } from "./calls.js";
import { connect } from "./client/lib/index.js";
import { written } from "./message.js";
import { Transcript } from "./transcript.js";
import { Unsent } from "./unsent.js";

/** @typedef {{get(name: string): string | null, set(name: string, value: string | null): void}} Storage */

/**
 * waiting: the server refused it, or an answer to it, for the moment; it is sent again.
 *
 * @typedef {"queued" | "sending" | "waiting" | "sent" | "refused"} Stage
 */

/**
 * What shows a conversation.
 *
 * @typedef {object} View
 * @property {() => void} clear Discard what is shown of the current session, but not what waits.
 * @property {() => void} divide The session has ended: what comes now belongs to another one.
 * @property {(id: string, text: string, stage: Stage, previous?: string,
 *   files?: import("./attachments.js").Attached[], why?: string) => void} message
 *   Show a user's message, or a change of it. Once sent, it stands behind the item *previous*.
 *   Its files may be left out when they were shown before. *why* it waits.
 * @property {(message: import("./message.js").Message) => boolean} giveBack Let the user have what was refused for good, to change it.
 *   Whether that was possible: else it stays shown as refused.
 * @property {(id: string) => void} begin A response has begun.
 * @property {(id: string, item: string, previous?: string) => void} place The output of response *id* is
 *   now *item*, behind *previous*. An item that was whole from the start is its own response.
 * @property {(id: string, call: import("./calls.js").Call,
 *   options?: {response?: string, previous?: string, delivery?: string}) => void} call
 *   Show a call, or a change of it: as the next thing of *response*, behind the item *previous*. *delivery* is how
 *   the user's decision on it is on its way.
 * @property {(id: string, previous?: string) => void} mark There is an item that isn't shown, behind *previous*.
 * @property {(item: string, text: string) => void} append
 * @property {(item: string, text: string) => void} settle This is the whole text.
 * @property {(id: string, outcome: import("./outcome.js").Outcome) => void} finish A response has ended.
 * @property {(id: string) => void} remove
 * @property {(text: string) => void} notice Something went wrong that isn't part of the conversation.
 * @property {(busy: "no" | "yes" | "stopping") => void} busy
 * @property {(name: string) => void} model
 * @property {(status: import("./client/lib/index.js").Status) => void} connection
 */

const TOKEN = "unbroken.resume";
const OUTBOX = "unbroken.outbox";
const MAX_WAITING = 20;
/** The server's default bound on a frame is 64 KiB. */
const MAX_BYTES = 60_000;

export class Conversation {
  /**
   * @param {object} options
   * @param {string} options.url
   * @param {string} options.key
   * @param {Storage} options.storage Lasts as long as the tab.
   * @param {View} options.view
   */
  constructor({ url, key, storage, view }) {
    this.#view = view;
    this.#unsent = new Unsent(view, this.#calls);
    this.#transcript = new Transcript({ view, calls: this.#calls, unsent: this.#unsent });
    this.client = connect({ url, key, maxUnsent: MAX_WAITING, state: restored(storage) });
    this.client.on("state", ({ session, unsent }) => {
      storage.set(TOKEN, session);
      storage.set(OUTBOX, unsent.length > 0 ? JSON.stringify(unsent) : null);
    });
    this.client.on("status", (status) => view.connection(status));
    this.client.on("session", ({ session }) => view.model(session.model));
    this.client.on("reset", (reset) => this.#reset(reset));
    this.client.on("event", (event) => this.#transcript.take(event));
    this.client.on("entry", (change) => this.#unsent.take(change));
    this.client.on("activity", (activity) => view.busy(BUSY[activity]));
    this.client.on("error", ({ message }) => view.notice(message));
  }

  #view;
  #calls = new Calls();
  #unsent;
  #transcript;

  /** Whether something would be lost with this conversation: it is being answered, or waits to be sent. */
  get isUnsettled() {
    return this.client.activity !== "idle" || !this.#unsent.isEmpty;
  }

  /**
   * @param {string} text
   * @param {import("./attachments.js").Attached[]} [files]
   * @returns {string | null} Why it can't be taken; null: it was.
   */
  say(text, files = []) {
    if (this.client.isFull) return FULL;
    const bytes = new TextEncoder().encode(JSON.stringify(text)).length;
    if (bytes > MAX_BYTES) return `The message is too long: ${bytes} bytes of at most ${MAX_BYTES}.`;
    const message = { text, files };
    this.client.send(written(message), { note: message });
    return null;
  }

  /** @param {string} request @param {boolean} approve Whether the call that asks for approval may be made. */
  decide(request, approve) {
    if (this.client.isFull) return this.#view.notice(FULL);
    this.client.decide(request, approve);
  }

  /** Have the last message answered again. */
  retry() {
    const asked = this.#transcript.asked;
    if (this.isUnsettled || asked === null) return;
    const { id, drop, ...message } = asked;
    // In another session than it was asked in, it has to be said again.
    if (drop === null) this.say(message.text, message.files);
    else this.client.retry(id, written(message), { drop, note: message });
  }

  /** Stop the answer, also one that hasn't begun. Without a connection: as soon as there is one. */
  stop() {
    this.client.stop();
  }

  /** @param {string} id Take back a message that was never sent. */
  withdraw(id) {
    this.client.withdraw(id);
  }

  /** @param {string} id Have a message that was refused back, to change it. */
  takeBack(id) {
    this.#unsent.takeBack(id);
  }

  /** Begin another conversation. */
  restart() {
    this.#unsent.clear(() => this.client.begin());
    this.#transcript.forget();
    this.#view.clear();
  }

  /** @param {import("./client/lib/index.js").ClientEvents["reset"]} reset */
  #reset({ reason, hadInput }) {
    if (reason === "ended") {
      this.#transcript.lose();
      this.#unsent.leave();
      if (hadInput) this.#view.divide();
    } else {
      this.#view.clear();
    }
    this.#transcript.reset();
  }
}

const FULL = `${MAX_WAITING} messages are waiting already.`;

/** @type {Record<import("./client/lib/index.js").Activity, "no" | "yes" | "stopping">} */
const BUSY = { idle: "no", answering: "yes", stopping: "stopping" };

/** @param {Storage} storage @returns {import("./client/lib/index.js").State} What the tab had before it was reloaded. */
function restored(storage) {
  /** @type {any[]} */
  let unsent = [];
  try {
    unsent = JSON.parse(storage.get(OUTBOX) ?? "[]");
  } catch {
    // Not this page's.
  }
  const known = unsent.filter((entry) => Array.isArray(entry.items) && Array.isArray(entry.former));
  return { session: storage.get(TOKEN), unsent: known, begun: [] };
}
