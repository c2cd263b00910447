/**
 * One tab's conversation: what was said, what waits to be sent, what is being answered.
 *
 * It turns the server's events into calls on a view, and what the user does into events.
 * It knows nothing of how either is done.
 */

import { Calls } from "./calls.js";
import { Delivery, MAX_WAITING } from "./delivery.js";
import { RealtimeClient, randomId } from "./realtime.js";
import { Transcript } from "./transcript.js";

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
 * @property {(entry: import("./outbox.js").Entry) => boolean} giveBack Let the user have what was refused for good, to change it.
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
 * @property {(state: import("./realtime.js").State) => void} connection
 */

/** The server's default bound on a frame is 64 KiB. */
const MAX_BYTES = 60_000;

export class Conversation {
  /**
   * @param {object} options
   * @param {string} options.url
   * @param {string} options.key
   * @param {import("./outbox.js").Storage} options.storage
   * @param {View} options.view
   */
  constructor({ url, key, storage, view }) {
    this.#view = view;
    this.client = new RealtimeClient({
      url,
      key,
      storage,
      on: {
        state: (state) => this.#state(state),
        session: (session, continuity) => this.#session(session, continuity),
        event: (event) => (event.type === "error" ? this.#failed(event.error) : this.#transcript.take(event)),
        ended: (hadInput) => this.#ended(hadInput),
        tooLarge: () => this.#delivery.tooLarge(),
        probe: (isUrgent) => (isUrgent || this.#isBusy ? this.#question() : null),
      },
    });
    const calls = new Calls();
    this.#calls = calls;
    this.#delivery = new Delivery({
      storage,
      view,
      calls,
      send: (event) => this.client.send(event),
      isAnswering: () => this.#transcript.isAnswering,
      due: () => this.#advance(),
    });
    this.#transcript = new Transcript({
      view,
      calls,
      delivery: this.#delivery,
      changed: () => this.#advance(),
      ended: () => (this.#wantsStop = false),
    });
  }

  #view;
  #calls;
  /** @type {Delivery} */
  #delivery;
  /** @type {Transcript} */
  #transcript;
  /** Whether everything that happened before this connection has been seen. */
  #isCaughtUp = false;
  /** @type {Set<string>} Events of this connection whose answer matters. */
  #expected = new Set();
  #wantsStop = false;
  /** Whether this connection has been told so. */
  #hasSentStop = false;

  /** Whether something would be lost with this conversation: it is being answered, or waits to be sent. */
  get isUnsettled() {
    return this.#isBusy || !this.#delivery.isEmpty;
  }

  // What the user does.

  /**
   * @param {string} text
   * @param {import("./attachments.js").Attached[]} [files]
   * @returns {string | null} Why it can't be taken; null: it was.
   */
  say(text, files = []) {
    if (this.#delivery.isFull) return `${MAX_WAITING} messages are waiting already.`;
    const bytes = new TextEncoder().encode(JSON.stringify(text)).length;
    if (bytes > MAX_BYTES) return `The message is too long: ${bytes} bytes of at most ${MAX_BYTES}.`;
    this.#delivery.put({ id: `msg_${randomId(16)}`, text, files });
    this.#advance();
    return null;
  }

  /** @param {string} request @param {boolean} approve Whether the call that asks for approval may be made. */
  decide(request, approve) {
    if (this.#calls.get(request)?.state !== "asked" || this.#delivery.decision(request) !== undefined) return;
    if (this.#delivery.isFull) return this.#view.notice(`${MAX_WAITING} messages are waiting already.`);
    this.#delivery.put({ id: `apr_${randomId(16)}`, approval: { request, approve } });
    this.#advance();
  }

  /** Have the last message answered again. */
  retry() {
    const asked = this.#transcript.asked;
    if (this.isUnsettled || asked === null) return;
    const { id, text, files, drop } = asked;
    // In another session than it was asked in, it has to be said again.
    if (drop === null) this.say(text, files);
    else this.#delivery.put({ id, text, files, drop, accepted: true });
    this.#advance();
  }

  /** Stop the answer, also one that hasn't begun. Without a connection: as soon as there is one. */
  stop() {
    if (!this.#isBusy) return;
    if (this.#delivery.isPaused && !this.#transcript.isAnswering) {
      this.#delivery.giveUp();
    } else {
      this.#wantsStop = true;
      this.#hasSentStop = false;
    }
    this.#advance();
  }

  /** @param {string} id Take back a message that was never sent. */
  withdraw(id) {
    this.#delivery.withdraw(id);
    this.#advance();
  }

  /** @param {string} id Have a message that was refused back, to change it. */
  takeBack(id) {
    this.#delivery.takeBack(id);
  }

  /** Begin another conversation. */
  restart() {
    if (this.#isBusy) this.client.send({ type: "response.cancel" });
    this.#delivery.clear();
    this.#transcript.forget();
    this.#wantsStop = false;
    this.#view.clear();
    this.client.begin();
  }

  // What the connection does.

  /** @param {import("./realtime.js").State} state */
  #state(state) {
    if (state.phase !== "connected") this.#isCaughtUp = false;
    this.#view.connection(state);
    this.#refresh();
  }

  /** @param {any} session @param {import("./realtime.js").Continuity} continuity */
  #session(session, continuity) {
    this.#delivery.reconnect();
    this.#hasSentStop = false;
    this.#expected.clear();
    this.#view.model(session.model);
    if (continuity !== "continued") this.#reset();
    if (continuity === "rebuilt") this.#view.clear();
    // What is ours alone is answered only when the log has been read: so everything that the
    // server has of us is known by then, and only the rest is sent again.
    this.#isCaughtUp = continuity === "new" || (this.#delivery.isEmpty && !this.#wantsStop);
    if (!this.#isCaughtUp) this.client.send(this.#question());
    this.#advance();
  }

  /** @param {boolean} hadInput */
  #ended(hadInput) {
    this.#transcript.lose();
    this.#delivery.leave();
    if (hadInput) this.#view.divide();
    this.#reset();
    this.#delivery.begin();
  }

  #reset() {
    this.#transcript.reset();
    this.#wantsStop = false;
  }

  // What the server says.

  /** @param {import("./refusal.js").ServerError} error */
  #failed(error) {
    const name = error.event_id ?? "";
    // After a reload, old refusals are told again, and a duplicated tab is told of its twin's:
    // those of events that this page doesn't wait for are no news.
    const [request, part] = name.split(".");
    if (name === "") {
      this.#delivery.refusedNameless(error);
    } else if (!this.#delivery.refused(request, part, error)) {
      if (!this.#expected.delete(name)) return;
      if (part === "question") return this.#caughtUp();
      // A stop that came too late is none. But one that found nothing to stop means that
      // nothing is going to answer the message, either.
      this.#wantsStop = false;
      if (!this.#transcript.isAnswering) this.#delivery.forsake();
    }
    this.#advance();
  }

  #caughtUp() {
    this.#isCaughtUp = true;
    if (!this.#isBusy) this.#wantsStop = false;
    this.#advance();
  }

  // What follows.

  get #isBusy() {
    return this.#transcript.isAnswering || this.#delivery.isAsking;
  }

  /** Send what can be sent now. */
  #advance() {
    if (this.client.isConnected && this.#isCaughtUp) {
      if (!this.#transcript.isAnswering) this.#delivery.advance();
      if (this.#wantsStop && this.#isBusy && !this.#hasSentStop) this.#sendStop();
    }
    this.#refresh();
  }

  #sendStop() {
    this.#hasSentStop = true;
    // Named where possible: another tab's next answer isn't meant.
    const targets = this.#transcript.isAnswering ? this.#transcript.responses : [undefined];
    for (const id of targets) {
      const event = { type: "response.cancel", event_id: `${randomId(9)}.stop`, response_id: id };
      this.#expected.add(event.event_id);
      this.client.send(event);
    }
  }

  /** @returns {object} An event that changes nothing and is answered when all before it was told. */
  #question() {
    const event_id = `${randomId(9)}.question`;
    this.#expected.add(event_id);
    return { type: "conversation.item.retrieve", item_id: `no_${event_id}`, event_id };
  }

  #refresh() {
    this.#view.busy(!this.#isBusy ? "no" : this.#wantsStop ? "stopping" : "yes");
  }
}
