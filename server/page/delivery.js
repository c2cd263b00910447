/**
 * Brings what the user has said to the server: each once, in order, the next when the last is answered.
 *
 * An entry is kept until the server is known to have it, and sent again under the same names after a
 * reconnect or a reload: the server takes each name once. What it refuses for the moment is sent again
 * after growing pauses; what it refuses for good is given back.
 */

import { Pause } from "./backoff.js";
import { Outbox } from "./outbox.js";
import { decisionShown, eventsOf } from "./parcel.js";
import { randomId } from "./realtime.js";
import { isRemembered, passingWords } from "./refusal.js";
import { Rejections } from "./rejections.js";

/** @typedef {import("./outbox.js").Entry} Entry */
/** @typedef {import("./refusal.js").ServerError} ServerError */

export const MAX_WAITING = 20;
const ACTIVE = "conversation_already_has_active_response";
const ANSWERED = "approval_answered";
/** Milliseconds before what was refused is sent again. */
const PATIENCE_MIN = 2_000;
const PATIENCE_MAX = 30_000;

export class Delivery {
  /**
   * @param {object} options
   * @param {import("./outbox.js").Storage} options.storage
   * @param {import("./conversation.js").View} options.view
   * @param {import("./calls.js").Calls} options.calls What decisions are about.
   * @param {(event: object) => void} options.send
   * @param {() => boolean} options.isAnswering Whether a response runs.
   * @param {() => void} options.due Something can be sent again.
   */
  constructor({ storage, view, calls, send, isAnswering, due }) {
    this.#outbox = new Outbox(storage);
    this.#rejections = new Rejections(view, calls);
    this.#view = view;
    this.#calls = calls;
    this.#send = send;
    this.#isAnswering = isAnswering;
    this.#due = due;
    for (const entry of this.#outbox) if (!entry.accepted) this.#show(entry);
  }

  /** Only its first entry is ever sent. */
  #outbox;
  #view;
  #calls;
  #send;
  #isAnswering;
  #due;
  /** @type {Entry | null} What was sent on this connection and isn't settled. */
  #flying = null;
  /** Until the first entry is sent again. */
  #pause = new Pause(PATIENCE_MIN, PATIENCE_MAX, () => {
    this.#flying = null;
    this.#due();
  });
  #rejections;
  /** @type {Set<string>} Requests whose message was refused: an answer to them would be to nothing. */
  #void = new Set();

  get isEmpty() {
    return this.#outbox.size === 0;
  }

  get isFull() {
    return this.#outbox.size >= MAX_WAITING;
  }

  /** Whether an answer was asked for that hasn't begun. */
  get isAsking() {
    return this.#outbox.first?.sent === true;
  }

  /** Whether what was refused is about to be sent again. */
  get isPaused() {
    return this.#pause.isOn;
  }

  // What the user does.

  /** @param {Partial<Entry> & {id: string}} entry */
  put(entry) {
    const whole = { text: "", request: randomId(12), drop: [], sent: false, accepted: false, ...entry };
    this.#outbox.add(whole);
    if (!whole.accepted) this.#show(whole);
  }

  /** @param {string} id Take back a message that was never sent. */
  withdraw(id) {
    const entry = this.#outbox.find((each) => each.id === id && !each.sent);
    if (entry === undefined) return;
    this.#outbox.remove(entry);
    this.#view.remove(id);
  }

  /** @param {string} id Have a message that was refused back, to change it. */
  takeBack(id) {
    this.#rejections.takeBack(id);
  }

  /** Take back what waits to be sent again: it is known not to be answered. */
  giveUp() {
    const entry = this.#outbox.first;
    this.#endPause();
    if (entry === undefined) return;
    if (!entry.accepted) return this.#reject(entry);
    this.#outbox.remove(entry);
    this.#settle(entry);
  }

  /** Nothing is going to answer what was sent: its answer was stopped before it began. */
  forsake() {
    if (this.#flying?.accepted) this.#outbox.remove(this.#flying);
  }

  /** Forget everything. */
  clear() {
    for (const entry of this.#outbox) this.#view.remove(entry.id);
    this.#outbox.clear();
    this.#rejections.clear();
    this.#endPause();
  }

  // What the connection does.

  /** There is another connection: what was sent on the last one may have been lost. */
  reconnect() {
    this.#flying = null;
  }

  /** The session has ended: what it hasn't answered goes to the next, as if it hadn't been sent. */
  begin() {
    this.#endPause();
    for (const entry of this.#outbox) {
      entry.accepted = entry.sent = false;
      delete entry.late;
      entry.drop = [];
      this.#show(entry);
    }
    this.#outbox.save();
  }

  /** The session has ended: forget what can't be answered anywhere else, and show no more what it had. */
  leave() {
    for (const entry of this.#outbox) if (entry.approval) this.#outbox.remove(entry);
    for (const entry of this.#outbox) if (entry.accepted) this.#view.remove(entry.id);
  }

  tooLarge() {
    if (this.#flying === null) return;
    this.#reject(this.#flying);
    this.#view.notice("The server takes no message of this length.");
  }

  /** Send what can be sent. Call while there is a connection, all before it is known, and nothing is answered. */
  advance() {
    const first = this.#outbox.first;
    if (first !== undefined && first !== this.#flying && !this.#pause.isOn) this.#transmit(first);
  }

  // What the server says.

  /** @param {string} id A message that the server has. */
  heard(id) {
    const entry = this.#outbox.find((each) => each.id === id);
    if (entry === undefined) return;
    entry.accepted = true;
    this.#outbox.save();
    if (entry.late) this.#show(entry);
  }

  /** @param {string} id An answer to a request for approval, by whomever. */
  decided(id) {
    const entry = this.#outbox.find((each) => each.id === id);
    if (entry !== undefined) this.#accept(entry);
  }

  /** @param {string} request @returns {Entry | undefined} The decision on it that is on its way. */
  decision(request) {
    return this.#outbox.find(({ approval }) => approval?.request === request);
  }

  /** @param {any} response It has begun. */
  acknowledge(response) {
    const request = response.metadata?.request;
    const isTaken = response.conversation_id !== undefined;
    // Whatever was asked for by others after a decision acts on it, too.
    const entry =
      this.#outbox.find((each) => each.request === request) ??
      this.#outbox.find(({ accepted, approval }) => isTaken && accepted && this.#isKnown(approval));
    if (entry !== undefined) {
      this.#outbox.remove(entry);
      this.#pause.reset();
      if (entry.late) this.#settle(entry);
    }
    if (entry === this.#flying) this.#flying = null;
    if (this.#void.delete(request)) this.#send({ type: "response.cancel", response_id: response.id });
  }

  /** @param {ServerError} error Of an event that it doesn't name: one that was dropped without having been read. */
  refusedNameless(error) {
    const words = passingWords(error);
    if (words === null) return this.#view.notice(error.message);
    if (this.#flying !== null && !this.#isAnswering()) this.#postpone(this.#flying, "item", error, words);
  }

  /**
   * @param {string} request @param {string} part @param {ServerError} error
   * @returns {boolean} Whether it is about something that is on its way.
   */
  refused(request, part, error) {
    const entry = this.#outbox.find((each) => each.request === request);
    if (entry !== undefined) this.#refused(entry, part, error);
    else if (part === "response") this.#void.delete(request);
    return entry !== undefined;
  }

  /** @param {Entry} entry @param {string} part @param {ServerError} error */
  #refused(entry, part, error) {
    const words = passingWords(error);
    if (part === "drop") return; // it is gone already
    if (part === "item" && error.code === "item_id_taken") {
      // By us: nobody else could know the id.
      if (entry.approval) this.#accept(entry);
      else entry.accepted = true;
    } else if (error.code === ACTIVE) {
      // Another tab was faster. A refusal is remembered under its name, so ask under another.
      entry.request = randomId(12);
      this.#outbox.save();
      if (this.#isAnswering()) this.#flying = null;
      else this.#pause.begin(error);
    } else if (words !== null) {
      this.#postpone(entry, part, error, words);
    } else {
      if (part !== "item") {
        this.#outbox.remove(entry);
      } else {
        if (!entry.approval) this.#void.add(entry.request); // it is on its way already
        this.#reject(entry);
      }
      if (error.code !== ANSWERED) this.#view.notice(error.message); // the line says so
    }
  }

  /**
   * Send what was refused for the moment again, later.
   *
   * @param {Entry} entry @param {string} part @param {ServerError} error @param {string} words
   */
  #postpone(entry, part, error, words) {
    const isWhole = part === "item" && !entry.accepted;
    // The answer that was asked for with it would be to what was said before.
    if (isWhole && !entry.approval) this.#void.add(entry.request);
    if (isWhole || isRemembered(error)) entry.request = randomId(12);
    entry.late = words;
    this.#outbox.save();
    this.#show(entry);
    this.#pause.begin(error);
  }

  /** @param {Entry} entry The server hasn't got it, and is never to. */
  #reject(entry) {
    this.#outbox.remove(entry);
    this.#rejections.add(entry);
  }

  /** @param {Entry} entry It waits no more. */
  #settle({ id, text, approval }) {
    if (!approval) return this.#view.message(id, text, "sent");
    const call = this.#calls.get(approval.request);
    if (call !== undefined) this.#view.call(approval.request, call);
  }

  /** @param {Entry} entry Of a decision that the server has. */
  #accept(entry) {
    entry.accepted = true;
    if (entry === this.#flying) this.#flying = null;
    // Who decides last has the model go on: it gets to know all results at once.
    if (this.#calls.isWaiting) this.#outbox.remove(entry);
    else this.#outbox.save();
  }

  /** @param {import("./outbox.js").Approval | undefined} approval @returns {boolean} Whether the log has told of it. */
  #isKnown(approval) {
    return approval !== undefined && this.#calls.get(approval.request)?.state !== "asked";
  }

  #endPause() {
    this.#pause.end();
    this.#flying = null;
  }

  /** @param {Entry} entry */
  #transmit(entry) {
    this.#flying = entry;
    entry.sent = true;
    this.#outbox.save(); // also after a reload, it can't be taken back
    if (!entry.accepted) this.#show(entry);
    for (const event of eventsOf(entry)) this.#send(event);
  }

  /** @param {Entry} entry */
  #show(entry) {
    if (entry.approval) {
      const call = this.#calls.get(entry.approval.request);
      // After a reload, the log has yet to tell what was asked.
      if (call !== undefined) this.#view.call(entry.approval.request, ...decisionShown(entry, call));
      return;
    }
    const delivery = entry.late ? "waiting" : entry.sent ? "sending" : "queued";
    this.#view.message(entry.id, entry.text, delivery, undefined, entry.files ?? [], entry.late);
  }
}
