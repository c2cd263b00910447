/**
 * One tab's conversation: what was said, what waits to be sent, what is being answered.
 *
 * It turns the server's events into calls on a view, and what the user does into events.
 * It knows nothing of how either is done.
 *
 * Every message is kept until the server is known to have it, and sent again under the same
 * names after a reconnect or a reload: the server takes each name once. Messages go one by one,
 * the next when the last is answered, so that each answer is to one message.
 */

import { Backoff } from "./backoff.js";
import { Calls, isCall } from "./calls.js";
import { Outbox } from "./outbox.js";
import { LOST, outcomeOf, outcomeOfItem } from "./outcome.js";
import { isRemembered, passingWords } from "./refusal.js";
import { RealtimeClient, randomId } from "./realtime.js";

/** @typedef {import("./outbox.js").Entry} Entry */

/** @typedef {import("./refusal.js").ServerError} ServerError */

/**
 * waiting: the server refused it, or an answer to it, for the moment; it is sent again.
 *
 * @typedef {"queued" | "sending" | "waiting" | "sent" | "refused"} Delivery
 */

/**
 * What shows a conversation.
 *
 * @typedef {object} View
 * @property {() => void} clear Discard what is shown of the current session, but not what waits.
 * @property {() => void} divide The session has ended: what comes now belongs to another one.
 * @property {(id: string, text: string, delivery: Delivery, previous?: string,
 *   files?: import("./attachments.js").Attached[], why?: string) => void} message
 *   Show a user's message, or a change of it. Once sent, it stands behind the item *previous*.
 *   Its files may be left out when they were shown before. *why* it waits.
 * @property {(entry: Entry) => boolean} giveBack Let the user have what was refused for good, to change it.
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

const MAX_WAITING = 20;
/** The server's default bound on a frame is 64 KiB. */
const MAX_BYTES = 60_000;
const ACTIVE = "conversation_already_has_active_response";
const ANSWERED = "approval_answered";
/** Milliseconds before what was refused is sent again. */
const PATIENCE_MIN = 2_000;
const PATIENCE_MAX = 30_000;
/** @type {{id: string, text: string, files: import("./attachments.js").Attached[]}} */
const NOTHING = { id: "", text: "", files: [] };

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
    this.#outbox = new Outbox(storage);
    this.client = new RealtimeClient({
      url,
      key,
      storage,
      on: {
        state: (state) => this.#state(state),
        session: (session, continuity) => this.#session(session, continuity),
        event: (event) => this.#handlers[event.type]?.(event),
        ended: (hadInput) => this.#ended(hadInput),
        tooLarge: () => this.#tooLarge(),
        probe: (isUrgent) => (isUrgent || this.#isBusy ? this.#question() : null),
      },
    });
    for (const entry of this.#outbox) if (!entry.accepted) this.#show(entry);
  }

  #view;
  /** Only its first entry is ever sent. */
  #outbox;
  /** @type {Entry | null} What was sent on this connection and isn't settled. */
  #flying = null;
  #backoff = new Backoff(PATIENCE_MIN, PATIENCE_MAX);
  /** @type {ReturnType<typeof setTimeout> | null} Until the first entry is sent again. */
  #pause = null;
  /** @type {Entry[]} What was refused for good and couldn't be given back yet. */
  #rejected = [];
  /** Whether everything that happened before this connection has been seen. */
  #isCaughtUp = false;
  /** @type {Map<string, Set<string>>} Responses in progress, each with the items that are its output so far. */
  #running = new Map();
  #calls = new Calls();
  /** @type {Set<string>} Requests whose message was refused: an answer to them would be to nothing. */
  #void = new Set();
  /** @type {Set<string>} Events of this connection whose answer matters. */
  #expected = new Set();
  #wantsStop = false;
  /** Whether this connection has been told so. */
  #hasSentStop = false;
  /** The last message of a user, and what was said in answer to it: what a retry is about. */
  #asked = NOTHING;
  /** @type {string[]} Messages alone: what was called has happened, and the model is to know. */
  #answer = [];
  #hasAsked = false;

  /** Whether something would be lost with this conversation: it is being answered, or waits to be sent. */
  get isUnsettled() {
    return this.#isBusy || this.#outbox.size > 0;
  }

  // What the user does.

  /**
   * @param {string} text
   * @param {import("./attachments.js").Attached[]} [files]
   * @returns {string | null} Why it can't be taken; null: it was.
   */
  say(text, files = []) {
    if (this.#outbox.size >= MAX_WAITING) return `${MAX_WAITING} messages are waiting already.`;
    const bytes = new TextEncoder().encode(JSON.stringify(text)).length;
    if (bytes > MAX_BYTES) return `The message is too long: ${bytes} bytes of at most ${MAX_BYTES}.`;
    const id = `msg_${randomId(16)}`;
    this.#put({ id, text, files, request: randomId(12), drop: [], sent: false, accepted: false });
    return null;
  }

  /** @param {string} request @param {boolean} approve Whether the call that asks for approval may be made. */
  decide(request, approve) {
    if (this.#calls.get(request)?.state !== "asked" || this.#decision(request) !== undefined) return;
    if (this.#outbox.size >= MAX_WAITING) return this.#view.notice(`${MAX_WAITING} messages are waiting already.`);
    const approval = { request, approve };
    const id = `apr_${randomId(16)}`;
    this.#put({ id, text: "", request: randomId(12), drop: [], sent: false, accepted: false, approval });
  }

  /** Have the last message answered again. */
  retry() {
    if (this.#isBusy || this.#outbox.size > 0) return;
    const { id, text, files } = this.#asked;
    // In another session than it was asked in, it has to be said again.
    if (id === "") return;
    if (!this.#hasAsked) this.say(text, files);
    else this.#put({ id, text, files, request: randomId(12), drop: [...this.#answer], sent: false, accepted: true });
  }

  /** Stop the answer, also one that hasn't begun. Without a connection: as soon as there is one. */
  stop() {
    if (!this.#isBusy) return;
    if (this.#pause !== null && this.#running.size === 0) return this.#giveUp();
    this.#wantsStop = true;
    this.#hasSentStop = false;
    this.#advance();
  }

  /** @param {string} id Take back a message that was never sent. */
  withdraw(id) {
    const entry = this.#outbox.find((each) => each.id === id && !each.sent);
    if (entry === undefined) return;
    this.#outbox.remove(entry);
    this.#view.remove(id);
    this.#advance();
  }

  /** @param {string} id Have a message that was refused back, to change it. */
  takeBack(id) {
    const entry = this.#rejected.find((each) => each.id === id);
    if (entry === undefined) return;
    if (!this.#view.giveBack(entry)) return this.#view.notice("Send or remove first what you have begun to write.");
    this.#rejected = this.#rejected.filter((each) => each !== entry);
    this.#view.remove(id);
  }

  /** Begin another conversation. */
  restart() {
    if (this.#isBusy) this.client.send({ type: "response.cancel" });
    for (const entry of this.#outbox) this.#view.remove(entry.id);
    this.#outbox.clear();
    this.#rejected = [];
    this.#asked = NOTHING;
    this.#endPause();
    this.#reset();
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
    this.#flying = null;
    this.#hasSentStop = false;
    this.#expected.clear();
    this.#view.model(session.model);
    if (continuity !== "continued") this.#reset();
    if (continuity === "rebuilt") this.#view.clear();
    // What is ours alone is answered only when the log has been read: so everything that the
    // server has of us is known by then, and only the rest is sent again.
    this.#isCaughtUp = continuity === "new" || (this.#outbox.size === 0 && !this.#wantsStop);
    if (!this.#isCaughtUp) this.client.send(this.#question());
    this.#advance();
  }

  /** @param {boolean} hadInput */
  #ended(hadInput) {
    for (const id of this.#running.keys()) this.#view.finish(id, LOST);
    for (const { id, call } of this.#calls.lost()) this.#view.call(id, call);
    // What was asked there can't be answered anywhere else.
    for (const entry of this.#outbox) if (entry.approval) this.#outbox.remove(entry);
    for (const entry of this.#outbox) if (entry.accepted) this.#view.remove(entry.id);
    if (hadInput) this.#view.divide();
    this.#endPause();
    this.#reset();
    for (const entry of this.#outbox) {
      // Nobody has it, or will answer it: it goes to the new session, as if it hadn't been sent.
      entry.accepted = entry.sent = false;
      delete entry.late;
      entry.drop = [];
      this.#show(entry);
    }
    this.#outbox.save();
  }

  #tooLarge() {
    const entry = this.#flying;
    if (entry === null) return;
    this.#reject(entry);
    this.#view.notice("The server takes no message of this length.");
  }

  #reset() {
    this.#running.clear();
    this.#calls.clear();
    this.#wantsStop = false;
    this.#answer = [];
    this.#hasAsked = false;
  }

  // What the server says.

  /** @type {Record<string, (event: any) => void>} */
  #handlers = {
    "conversation.item.added": ({ item, previous_item_id: previous }) => {
      if (item.role === "user") this.#heard(item, previous);
      else if (item.role === "assistant") this.#view.place(item.id, item.id, previous);
      else if (!isCall(item)) this.#view.mark(item.id, previous);
      const change = this.#calls.note(item, false);
      this.#called(change, change?.id === item.id ? { previous } : {}); // else it is about another item
      if (item.type === "mcp_approval_response") this.#decided(item.id);
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
    "conversation.item.retrieved": () => {},
    "response.created": ({ response }) => {
      this.#acknowledge(response);
      if (response.conversation_id === undefined) return; // beside the conversation, or over already
      this.#running.set(response.id, new Set());
      this.#answer = [];
      this.#view.begin(response.id);
      this.#advance();
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
      if (this.#running.size === 0) this.#wantsStop = false;
      this.#advance();
    },
    error: ({ error }) => this.#failed(error),
  };

  /** @param {any} item @param {string | undefined} previous */
  #heard(item, previous) {
    const { text, files } = read(item.content);
    this.#view.message(item.id, text, "sent", previous, files);
    this.#calls.goOn();
    this.#asked = { id: item.id, text, files };
    this.#answer = [];
    this.#hasAsked = true;
    const entry = this.#outbox.find(({ id }) => id === item.id);
    if (entry === undefined) return;
    entry.accepted = true;
    this.#outbox.save();
    if (entry.late) this.#show(entry);
  }

  /**
   * @param {import("./calls.js").Change | null} change
   * @param {{response?: string, previous?: string}} [options]
   */
  #called(change, options) {
    if (change === null) return;
    const entry = change.call.state === "asked" ? this.#decision(change.id) : undefined;
    if (entry === undefined) this.#view.call(change.id, change.call, options);
    else this.#showDecision(entry, change.call, options);
  }

  /** @param {string} id An answer to a request for approval, by whomever. */
  #decided(id) {
    const entry = this.#outbox.find((each) => each.id === id);
    if (entry === undefined) return;
    this.#accept(entry);
    this.#advance();
  }

  /** @param {Entry} entry Of a decision that the server has. */
  #accept(entry) {
    entry.accepted = true;
    if (entry === this.#flying) this.#flying = null;
    // Who decides last has the model go on: it gets to know all results at once.
    if (this.#calls.isWaiting) this.#outbox.remove(entry);
    else this.#outbox.save();
  }

  /** @param {string} request @returns {Entry | undefined} The decision on it that is on its way. */
  #decision(request) {
    return this.#outbox.find(({ approval }) => approval?.request === request);
  }

  /** @param {any} response */
  #acknowledge(response) {
    const request = response.metadata?.request;
    const isTaken = response.conversation_id !== undefined;
    // Whatever was asked for by others after a decision acts on it, too.
    const entry =
      this.#outbox.find((each) => each.request === request) ??
      this.#outbox.find(({ accepted, approval }) => isTaken && accepted && this.#isKnown(approval));
    if (entry !== undefined) {
      this.#outbox.remove(entry);
      this.#backoff.reset();
      if (entry.late && !entry.approval) this.#view.message(entry.id, entry.text, "sent");
    }
    if (entry === this.#flying) this.#flying = null;
    if (this.#void.delete(request)) this.client.send({ type: "response.cancel", response_id: response.id });
  }

  /** @param {import("./outbox.js").Approval | undefined} approval @returns {boolean} Whether the log has told of it. */
  #isKnown(approval) {
    return approval !== undefined && this.#calls.get(approval.request)?.state !== "asked";
  }

  /** @param {ServerError} error */
  #failed(error) {
    const name = error.event_id;
    if (name === undefined) return this.#failedNameless(error);
    // After a reload, old refusals are told again, and a duplicated tab is told of its twin's:
    // those of events that this page doesn't wait for are no news.
    const [request, part] = name.split(".");
    const entry = this.#outbox.find((each) => each.request === request);
    if (entry !== undefined) return this.#refused(entry, part, error);
    if (part === "response") this.#void.delete(request);
    if (!this.#expected.delete(name)) return;
    if (part === "question") return this.#caughtUp();
    // A stop that came too late is none. But one that found nothing to stop means that
    // nothing is going to answer the message, either.
    this.#wantsStop = false;
    if (this.#flying?.accepted && this.#running.size === 0) this.#outbox.remove(this.#flying);
    this.#advance();
  }

  /** @param {ServerError} error Of an event that it doesn't name: one that was dropped without having been read. */
  #failedNameless(error) {
    const words = passingWords(error);
    if (words === null) return this.#view.notice(error.message);
    if (this.#flying !== null && this.#running.size === 0) this.#postpone(this.#flying, "item", error, words);
    this.#advance();
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
      if (this.#running.size > 0) this.#flying = null;
      else this.#sendLater(error);
    } else if (words !== null) {
      this.#postpone(entry, part, error, words);
    } else {
      if (part === "item") {
        if (!entry.approval) this.#void.add(entry.request); // it is on its way already
        this.#reject(entry);
      } else {
        this.#outbox.remove(entry);
      }
      if (error.code !== ANSWERED) this.#view.notice(error.message); // the line says so
    }
    this.#advance();
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
    this.#sendLater(error);
  }

  /** Take back what waits to be sent again: it is known not to be answered. */
  #giveUp() {
    const entry = this.#outbox.first;
    this.#endPause();
    if (entry === undefined) return;
    if (entry.accepted) {
      this.#outbox.remove(entry);
      if (!entry.approval) this.#view.message(entry.id, entry.text, "sent");
    } else {
      this.#reject(entry);
    }
    this.#advance();
  }

  /** @param {Entry} entry The server hasn't got it, and is never to. */
  #reject(entry) {
    this.#outbox.remove(entry);
    if (!entry.approval && this.#view.giveBack(entry)) return this.#view.remove(entry.id);
    if (!entry.approval) this.#rejected = [...this.#rejected, entry].slice(-MAX_WAITING);
    this.#showRefused(entry);
  }

  #caughtUp() {
    this.#isCaughtUp = true;
    if (this.#running.size === 0 && !this.#outbox.first?.sent) this.#wantsStop = false;
    this.#advance();
  }

  // What follows.

  get #isBusy() {
    return this.#running.size > 0 || this.#outbox.first?.sent === true;
  }

  /** @param {Entry} entry */
  #put(entry) {
    this.#outbox.add(entry);
    if (!entry.accepted) this.#show(entry);
    this.#advance();
  }

  /** Send what can be sent now. */
  #advance() {
    const first = this.#outbox.first;
    if (this.client.isConnected && this.#isCaughtUp) {
      if (first !== undefined && this.#running.size === 0 && first !== this.#flying && this.#pause === null)
        this.#transmit(first);
      if (this.#wantsStop && this.#isBusy && !this.#hasSentStop) this.#sendStop();
    }
    this.#refresh();
  }

  /** @param {ServerError} error */
  #sendLater(error) {
    if (this.#pause !== null) return;
    this.#pause = setTimeout(() => {
      this.#endPause();
      this.#advance();
    }, this.#backoff.next(error));
  }

  #endPause() {
    if (this.#pause !== null) clearTimeout(this.#pause);
    this.#pause = this.#flying = null;
  }

  /** @param {Entry} entry */
  #transmit(entry) {
    this.#flying = entry;
    entry.sent = true;
    this.#outbox.save(); // also after a reload, it can't be taken back
    const { id, text, request, drop, approval } = entry;
    if (!entry.accepted) {
      this.#show(entry);
      if (approval) {
        const { request: approval_request_id, approve } = approval;
        const item = { id, type: "mcp_approval_response", approval_request_id, approve };
        // Whether an answer is due is known when the server has taken it.
        return this.#send({ type: "conversation.item.create", item }, request, "item");
      }
      const item = { id, type: "message", role: "user", content: written(text, entry.files ?? []) };
      this.#send({ type: "conversation.item.create", item }, request, "item");
    }
    for (const item_id of drop) this.#send({ type: "conversation.item.delete", item_id }, request, "drop", item_id);
    // The metadata comes back with the response: so it is known which one answers this.
    this.#send({ type: "response.create", response: { metadata: { request } } }, request, "response");
  }

  /**
   * @param {object} event
   * @param {string} request
   * @param {string} part
   * @param {string} [name] Of the event among all of its type.
   */
  #send(event, request, part, name = request) {
    this.client.send({ ...event, event_id: `${request}.${part}`, unbroken: { message_id: name } });
  }

  #sendStop() {
    this.#hasSentStop = true;
    // Named where possible: another tab's next answer isn't meant.
    const targets = this.#running.size > 0 ? [...this.#running.keys()] : [undefined];
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

  /** @param {Entry} entry */
  #show(entry) {
    if (entry.approval) {
      const call = this.#calls.get(entry.approval.request);
      // After a reload, the log has yet to tell what was asked.
      if (call !== undefined) this.#showDecision(entry, call);
      return;
    }
    const delivery = entry.late ? "waiting" : entry.sent ? "sending" : "queued";
    this.#view.message(entry.id, entry.text, delivery, undefined, entry.files ?? [], entry.late);
  }

  /**
   * @param {Entry} entry
   * @param {import("./calls.js").Call} call
   * @param {{response?: string, previous?: string}} [options]
   */
  #showDecision({ approval, sent, late }, call, options) {
    if (approval === undefined) return;
    const delivery = late ? late : sent ? "Sending" : "Waits to be sent";
    this.#view.call(
      approval.request,
      { ...call, state: approval.approve ? "allowed" : "refused" },
      { ...options, delivery },
    );
  }

  /** @param {Entry} entry */
  #showRefused({ id, text, approval }) {
    if (approval === undefined) return this.#view.message(id, text, "refused");
    const call = this.#calls.get(approval.request);
    if (call !== undefined) this.#view.call(approval.request, call);
  }

  #refresh() {
    this.#view.busy(!this.#isBusy ? "no" : this.#wantsStop ? "stopping" : "yes");
  }
}

/** @param {any[]} content Of a user's message, as the server shows it. */
function read(content) {
  const files = content.flatMap(({ type, unbroken: file }) =>
    file === undefined ? [] : [{ id: file.file_id, name: file.filename, isImage: type === "input_image" }],
  );
  const texts = content.filter((part) => part.unbroken === undefined).map((part) => part.text ?? "");
  return { text: texts.join(""), files };
}

/** @param {string} text @param {import("./attachments.js").Attached[]} files @returns {object[]} */
function written(text, files) {
  const parts = files.map(({ id, isImage }) => ({ type: isImage ? "input_image" : "input_file", file_id: id }));
  return text === "" && parts.length > 0 ? parts : [{ type: "input_text", text }, ...parts];
}
