/**
 * A server as the client's core sees it: one session with its log, resumed from any frame, told anew where the log
 * has been forgotten, and with every refusal that passes. It has no socket: frames lie in two queues until a test
 * carries them.
 */

const PASSING = ["server_overloaded", "store_unavailable", "guard_unavailable", "response_queue_full", "too_many_responses"];

export class FakeServer {
  /** @param {() => number} random */
  constructor(random) {
    this.random = random;
  }

  /** Sessions by token. @type {Map<string, FakeSession>} */
  sessions = new Map();
  /** How likely an input is refused for the moment. */
  refusing = 0;
  #count = 0;

  /** Answer a handshake. @returns {Connection} */
  connect(query) {
    if (query.resume !== null && !this.sessions.has(query.resume)) {
      const connection = new Connection(this, null);
      connection.down.push({ type: "error", event_id: "unplaced", error: { code: "session_not_found", message: "Gone." } });
      connection.closing = 1008;
      return connection;
    }
    const token = query.resume ?? `token${++this.#count}`;
    const session = this.sessions.get(token) ?? new FakeSession(this, token);
    this.sessions.set(token, session);
    return session.attach(query.resume === null ? null : query);
  }

  /** All sessions are lost: a restart with the store in memory. */
  lose() {
    for (const session of this.sessions.values()) session.detach();
    this.sessions.clear();
  }

  draw(list) {
    return list[Math.floor(this.random() * list.length)];
  }
}

/** One connection: what is under way in each direction. */
class Connection {
  constructor(server, session) {
    this.server = server;
    this.session = session;
  }

  /** From the client. @type {any[]} */
  up = [];
  /** To the client. @type {any[]} */
  down = [];
  /** The code it is closed with behind what is under way; null: it isn't. */
  closing = null;
  cursor = 0;
  #own = 0;

  /** Let the server read one event. */
  read() {
    const event = this.up.shift();
    if (event !== undefined && this.session !== null) this.session.take(event, this);
  }

  /** Put what the log holds in the queue. */
  pump() {
    const { log } = this.session;
    while (this.cursor < log.length) this.down.push(log[this.cursor++]);
  }

  /** A frame that isn't in the log. Its id stands for the place where it came. */
  own(frame) {
    this.pump();
    this.#own += 1;
    this.down.push({ ...frame, event_id: `e${this.session.id}.${this.session.epoch}.${this.cursor}-${this.#own}` });
  }
}

class FakeSession {
  static count = 0;

  constructor(server, token) {
    this.server = server;
    this.token = token;
    this.id = ++FakeSession.count;
  }

  /** Counts up when the log is forgotten: cursors of before can't be used. */
  epoch = 0;
  /** @type {any[]} */
  log = [];
  /** Items of the conversation, in order. @type {any[]} */
  items = [];
  /** @type {Set<string>} */
  #itemIds = new Set();
  /** What was asked for under a name, and how it was refused. @type {Map<string, any>} */
  #names = new Map();
  /** Responses, in the order in which they began. @type {any[]} */
  responses = [];
  /** Refused with the item that it was sent with. @type {string | null} */
  #breath = null;
  /** @type {Set<Connection>} */
  #connections = new Set();
  #responseCount = 0;

  get running() {
    return this.responses.find(({ status }) => status === "in_progress");
  }

  detach() {
    for (const connection of this.#connections) connection.session = null;
  }

  attach(resume) {
    const connection = new Connection(this.server, this);
    this.#connections.add(connection);
    const place = /^e(\d+)\.(\d+)\.(\d+)/.exec(resume?.after ?? "");
    const isGood = place !== null && Number(place[1]) === this.id && Number(place[2]) === this.epoch;
    const unbroken = { resume: this.token };
    if (resume !== null) unbroken.resumed = isGood || (resume.after === null && this.epoch === 0);
    const session = { id: `sess_${this.id}`, model: "fake", unbroken };
    if (isGood) connection.cursor = Number(place[3]);
    else if (this.epoch > 0) connection.cursor = this.log.length;
    if (isGood || this.epoch === 0) {
      connection.down.push({ type: "session.created", session, event_id: `e${this.id}.${this.epoch}.${connection.cursor}-0` });
      connection.pump();
      return connection;
    }
    const frames = [{ type: "session.created", session }, ...this.#standing()];
    frames.forEach((frame, index) => {
      const isLast = index === frames.length - 1;
      const event_id = isLast ? `e${this.id}.${this.epoch}.${connection.cursor}-0` : `unplaced${index}`;
      connection.down.push({ ...frame, event_id });
    });
    return connection;
  }

  /** The conversation as it stands, as frames. */
  *#standing() {
    for (const item of this.items) {
      yield { type: "conversation.item.added", item, ...this.#behind(item) };
      yield { type: "conversation.item.done", item, ...this.#behind(item) };
    }
    const { running } = this;
    if (running === undefined) return;
    yield { type: "response.created", response: shown(running) };
    if (running.text === "") return;
    const about = { response_id: running.id, item_id: running.item };
    yield { type: "response.output_item.added", response_id: running.id, item: message(running, "in_progress") };
    yield { type: "conversation.item.added", item: message(running, "in_progress") };
    yield { type: "response.output_text.delta", ...about, delta: running.text };
  }

  #behind(item) {
    const place = this.items.indexOf(item);
    return place > 0 ? { previous_item_id: this.items[place - 1].id } : {};
  }

  /** Forget the log: whoever comes back is told the conversation as it stands. */
  forget() {
    for (const connection of this.#connections) connection.pump(); // whoever is there has been told
    this.epoch += 1;
    this.log = [];
    for (const connection of this.#connections) connection.cursor = 0;
  }

  write(frame) {
    this.log.push({ ...frame, event_id: `e${this.id}.${this.epoch}.${this.log.length + 1}` });
  }

  take(event, connection) {
    connection.pump();
    const refuse = (code) => connection.own({ type: "error", error: { code, message: code, event_id: event.event_id } });
    const name = event.unbroken?.message_id === undefined ? null : `${event.type} ${event.unbroken.message_id}`;
    if (name !== null && this.#names.has(name)) {
      const { code, said } = this.#names.get(name);
      if (said !== JSON.stringify(event)) refuse("message_id_reused");
      else if (code !== null) refuse(code);
      return;
    }
    const note = (code) => name !== null && this.#names.set(name, { code, said: JSON.stringify(event) });
    switch (event.type) {
      case "conversation.item.retrieve":
        return refuse("item_not_found");
      case "conversation.item.create": {
        this.#breath = null;
        if (this.#itemIds.has(event.item.id)) {
          note("item_id_taken");
          return refuse("item_id_taken");
        }
        if (this.server.random() < this.server.refusing) {
          this.#breath = this.server.draw(["server_overloaded", "store_unavailable", "guard_unavailable"]);
          return refuse(this.#breath);
        }
        note(null);
        return this.add({ ...event.item, status: "completed" });
      }
      case "response.create": {
        const breath = this.#breath;
        this.#breath = null;
        if (breath !== null) return refuse(breath);
        if (this.running !== undefined) {
          note("conversation_already_has_active_response");
          return refuse("conversation_already_has_active_response");
        }
        if (this.server.random() < this.server.refusing) {
          const code = this.server.draw(PASSING);
          if (code === "response_queue_full") note(code);
          return refuse(code);
        }
        note(null);
        return this.begin(event.response.metadata);
      }
      case "response.cancel": {
        const { running } = this;
        if (running === undefined || (event.response_id ?? running.id) !== running.id) {
          return refuse("response_cancel_not_active");
        }
        return this.finish("cancelled");
      }
      default:
        throw new Error(`not modelled: ${event.type}`);
    }
  }

  add(item) {
    this.#itemIds.add(item.id);
    this.items.push(item);
    this.write({ type: "conversation.item.added", item, ...this.#behind(item) });
    this.write({ type: "conversation.item.done", item, ...this.#behind(item) });
  }

  begin(metadata) {
    const id = `resp_${this.id}_${++this.#responseCount}`;
    const asked = this.items.at(-1);
    this.responses.push({ id, item: `answer_${id}`, status: "in_progress", text: "", metadata, asked: asked?.id, calls: [] });
    this.write({ type: "response.created", response: shown(this.responses.at(-1)) });
  }

  /** Let the answer that runs go on: by some words, to a call or to its end. */
  goOn() {
    const { running, server } = this;
    if (running === undefined) return;
    if (server.random() < 0.8) return this.say(`${running.id}:${running.text.length} `);
    const wasCalled = running.asked?.startsWith("out_");
    if (!wasCalled && server.random() < 0.4) running.calls.push({ call_id: `call_${running.id}`, name: "f", arguments: "{}" });
    this.finish(server.draw(["completed", "completed", "completed", "incomplete", "failed"]));
  }

  say(delta) {
    const { running } = this;
    const about = { response_id: running.id, item_id: running.item };
    if (running.text === "") {
      const item = message(running, "in_progress");
      this.write({ type: "response.output_item.added", response_id: running.id, item });
      this.write({ type: "conversation.item.added", item });
    }
    running.text += delta;
    this.write({ type: "response.output_text.delta", ...about, delta });
  }

  finish(status) {
    const { running } = this;
    running.status = status;
    if (status !== "completed") running.calls = [];
    const output = [];
    if (running.text !== "") output.push(message(running, status === "completed" ? "completed" : "incomplete"));
    for (const call of running.calls) {
      output.push({ id: `item_${call.call_id}`, type: "function_call", status: "completed", ...call });
    }
    // An answer stands behind what it answers, whatever was said meanwhile.
    let place = this.items.findIndex(({ id }) => id === running.asked) + 1;
    for (const item of output) {
      this.items.splice(place++, 0, item);
      if (item.type === "function_call") this.write({ type: "conversation.item.added", item, ...this.#behind(item) });
      this.write({ type: "conversation.item.done", item, ...this.#behind(item) });
    }
    this.write({ type: "response.done", response: shown(running, output) });
  }

  /** The node of the answer that runs is lost: it is begun anew, as another response. */
  attemptAgain() {
    const { running } = this;
    if (running === undefined) return;
    running.status = "void";
    const response = { ...shown(running), status: "failed", unbroken: { status: "interrupted", message: "Lost." } };
    response.status_details = { error: { code: "interrupted" } };
    if (running.text !== "") this.write({ type: "conversation.item.done", item: message(running, "incomplete") });
    this.write({ type: "response.done", response });
    if (running.text !== "") this.write({ type: "conversation.item.deleted", item_id: running.item });
    const { asked } = running;
    this.begin(running.metadata);
    this.responses.at(-1).asked = asked;
  }
}

function shown(response, output = []) {
  const { id, status, metadata, text } = response;
  const made = { id, object: "realtime.response", status, output, conversation_id: "conv" };
  if (metadata !== undefined) made.metadata = metadata;
  if (status === "failed") made.status_details = { error: { code: "agent_error" } };
  if (status === "cancelled") made.status_details = { reason: "client_cancelled" };
  if (status === "incomplete") made.status_details = { reason: "max_output_tokens" };
  return made;
}

function message({ item, text }, status) {
  return { id: item, type: "message", role: "assistant", status, content: text === "" ? [] : [{ type: "output_text", text }] };
}
