/** A client's core, a fake server, and what lies between, carried and lost as a test says. Time is a number. */

import { Core } from "../../../../server/page/client/lib/core.js";

import { FakeServer } from "./fake_server.mjs";

/** Numbers from a seed: mulberry32. @returns {() => number} */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

export class World {
  /** @param {number} seed */
  constructor(seed) {
    this.random = seeded(seed);
    this.server = new FakeServer(this.random);
    this.begin(null);
  }

  now = 1_000_000;
  /** @type {import("./fake_server.mjs").Connection | null} */
  connection = null;
  /** Whether what was under way on a connection that is gone may arrive. */
  isLate = true;
  /** Connections that are gone, with something still under way to the server. */
  stranded = [];
  /** A connection that is asked for. */
  wanted = null;
  /** By turn: what it was told, and how it ended. @type {Map<string, any>} */
  turns = new Map();
  /** Events since what is shown was last void, with what they were. @type {any[]} */
  events = [];
  resets = [];
  statuses = [];
  entries = [];
  /** Calls that were handed over and haven't returned: turn and calls. @type {any[]} */
  calls = [];
  /** How often each call was handed over. @type {Map<string, number>} */
  handed = new Map();
  restarts = 0;
  #ids = 0;
  /** Names of wishes for an answer, with the entry that each was for. @type {Map<string, any>} */
  requests = new Map();
  /** Responses that the client wanted stopped. @type {Set<string>} */
  stopped = new Set();
  /** What is kept through reloads: written whenever the core says so. */
  kept = null;

  begin(state) {
    this.core = new Core({
      state,
      session: null,
      maxUnsent: 20,
      canRenew: false,
      canRun: (name) => name === "f",
      random: this.random,
      newId: () => `id${++this.#ids}`,
    });
    for (const id of this.core.turns) this.#turn(id).text = "";
    this.act((core) => core.start(this.now));
  }

  /** The page goes, and another comes with what was kept. */
  reload() {
    this.connection = this.wanted = null;
    this.calls = [];
    this.events = [];
    const kept = JSON.parse(JSON.stringify(this.kept));
    this.begin(kept);
  }

  /** Tell the core something, and do what it wants done. */
  act(tell) {
    const told = tell(this.core);
    const effects = this.core.effects();
    // As the shell does: kept before anything is sent, and that is the state of after all of them.
    for (const effect of effects) if (effect.do === "save") this.#perform(effect);
    for (const effect of effects) if (effect.do !== "save") this.#perform(effect);
    return told;
  }

  say(text) {
    const id = this.act((core) => core.send([{ type: "input_text", text }], undefined, this.now));
    this.#turn(id).said = text;
    return id;
  }

  // What lies between.

  /** Let the connection that is asked for come about. */
  open() {
    if (this.wanted === null) return;
    const query = this.wanted;
    this.wanted = null;
    this.connection = this.server.connect(query);
  }

  /** Carry one event to the server. */
  up() {
    this.connection?.read();
  }

  /** Carry one event to the client. */
  down() {
    const { connection } = this;
    if (connection === null) return;
    if (connection.session !== null) connection.pump();
    const event = connection.down.shift();
    if (event !== undefined) this.act((core) => core.receive(structuredClone(event), this.now));
    else if (connection.closing !== null) this.drop(connection.closing);
  }

  /**
   * The connection is gone, once the client has got *rest* more of it. What is under way to the server is lost, or
   * arrives in spite of that at some time.
   */
  drop(code = 1006, rest = 0) {
    for (let count = 0; count < rest; count += 1) this.down();
    if (this.connection === null && this.wanted === null) return;
    if (this.isLate && this.connection !== null && this.connection.up.length > 0) this.stranded.push(this.connection);
    this.connection = this.wanted = null;
    this.act((core) => core.closed(code, this.now));
  }

  /** Carry something to the server that was sent on a connection which is gone. */
  late() {
    this.stranded = this.stranded.filter(({ up }) => up.length > 0);
    this.stranded[0]?.read();
  }

  /** Let time pass. */
  pass(milliseconds) {
    this.now += milliseconds;
    if (this.core.wakeAt <= this.now) this.act((core) => core.wake(this.now));
  }

  /** Let the client's functions return. */
  return() {
    const call = this.calls.shift();
    if (call === undefined) return;
    const outputs = call.calls.map(({ call_id }) => ({ call_id, output: `returned ${call_id}` }));
    this.act((core) => core.returned(call.turn, outputs, this.now));
  }

  /** Let everything go well until nothing is left to do. */
  settle() {
    this.server.refusing = 0;
    for (let quiet = 0, steps = 0; quiet < 400; steps += 1) {
      if (steps > 100_000) throw new Error("it never came to rest");
      const before = this.#standing();
      this.open();
      this.up();
      this.late();
      this.down();
      this.return();
      for (const session of this.server.sessions.values()) session.goOn();
      this.pass(100);
      const isBusy = this.core.activity !== "idle" || this.core.turns.length > 0;
      quiet = before === this.#standing() && !isBusy ? quiet + 1 : 0;
    }
  }

  /** All that changes while something goes on. */
  #standing() {
    return JSON.stringify([this.core.state, this.connection?.down.length, this.connection?.up.length, this.calls.length]);
  }

  #turn(id) {
    const known = this.turns.get(id) ?? { id, text: "", restarts: 0, ended: null };
    this.turns.set(id, known);
    return known;
  }

  #perform(effect) {
    switch (effect.do) {
      case "open":
        this.wanted = effect.query;
        break;
      case "shut":
        this.connection = this.wanted = null;
        break;
      case "send":
        if (effect.event.type === "response.cancel") this.stopped.add(effect.event.response_id);
        this.connection?.up.push(structuredClone(effect.event));
        break;
      case "save":
        this.kept = this.core.state;
        for (const { id, kind, request } of this.kept.unsent) this.requests.set(request, { turn: id, kind });
        break;
      case "call":
        this.calls.push(effect);
        for (const { call_id } of effect.calls) this.handed.set(call_id, (this.handed.get(call_id) ?? 0) + 1);
        break;
      case "abort":
        this.calls = this.calls.filter(({ turn }) => turn !== effect.turn);
        break;
      case "delta":
        this.#open(effect.turn).text += effect.text;
        break;
      case "restart":
        this.restarts += 1;
        this.#open(effect.turn).text = effect.text;
        break;
      case "end":
        this.#open(effect.turn).ended = { status: effect.result.status, text: effect.result.text };
        break;
      case "fail":
        this.#open(effect.turn).ended = { status: "failed", text: effect.failure.text, code: effect.failure.code };
        break;
      case "refuse":
        this.#open(effect.turn).ended = { status: "refused", text: "", code: effect.error.code };
        break;
      case "tell":
        if (effect.name === "event") this.events.push(effect.told);
        else if (effect.name === "reset") {
          this.resets.push(effect.told.reason);
          this.events = [];
        } else if (effect.name === "status") this.statuses.push(effect.told);
        else if (effect.name === "entry") this.entries.push({ id: effect.told.entry.id, stage: effect.told.stage });
        break;
      default:
        throw new Error(`what is ${effect.do}?`);
    }
  }

  #open(id) {
    const turn = this.#turn(id);
    if (turn.ended !== null) throw new Error(`${id} was told something behind its end`);
    return turn;
  }
}
