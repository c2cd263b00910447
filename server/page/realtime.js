/**
 * A client of `WS /v1/realtime` that doesn't lose its place.
 *
 * It knows connecting, reconnecting and resuming, and nothing of the page or of what a
 * conversation is: whoever holds it is given the server's events, in order and each once.
 */

import { Backoff } from "./backoff.js";

/**
 * How the connection stands.
 *
 * @typedef {{phase: "connecting"}
 *   | {phase: "connected", isSaved: boolean}
 *   | {phase: "waiting", until: number, reason: string, isPlanned: boolean}
 *   | {phase: "stopped", code: string, reason: string}} State
 * `until` is in milliseconds of `Date.now()`; `reason` is for people, and may be empty. Planned: the server
 * is being restarted, and nothing is wrong.
 */

/**
 * How a session follows what was there before.
 *
 * new: it is another one. continued: exactly where the connection was lost.
 * rebuilt: the same one, from its beginning; what is shown of it is void.
 *
 * @typedef {"new" | "continued" | "rebuilt"} Continuity
 */

/**
 * @typedef {object} Handlers
 * @property {(state: State) => void} state The connection's state has changed.
 * @property {(session: any, continuity: Continuity) => void} session A connection is ready for use.
 * @property {(event: any) => void} event Any further server event.
 * @property {(hadInput: boolean) => void} ended The session is gone from the server. Another one is
 *   begun by itself.
 * @property {() => void} tooLarge What was sent last is larger than the server takes.
 * @property {(isUrgent: boolean) => (object | null)} probe An event that the server is sure to answer,
 *   to find out whether the connection lives; null: nothing is being waited for. Urgent: there is
 *   reason to doubt it.
 */

/** Close codes after which the same connection may well succeed. All others are final. */
const RECONNECT = new Set([1001, 1005, 1006, 1011, 1012, 1013, 1015]);
const TOO_LARGE = 1009;
const RESTART = 1012;
/** Milliseconds within which a server that is being restarted is expected back. */
const RESTART_TIME = 60_000;

const BACKOFF_MIN = 500;
const BACKOFF_MAX = 8_000;
/** A connection that has lasted so long ends a row of failures. */
const STABLE_AFTER = 5_000;
const OPENING_TIMEOUT = 10_000;
/** Silence after which a connection that should say something is probed, and then given up. */
const SILENCE = 10_000;
const PROBE_TIMEOUT = 5_000;
const TICK = 2_500;

const TOKEN = "unbroken.resume";

/** @param {number} bytes @returns {string} That many random bytes, in base64url. */
export function randomId(bytes) {
  const values = crypto.getRandomValues(new Uint8Array(bytes));
  return btoa(String.fromCharCode(...values)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export class RealtimeClient {
  /**
   * @param {object} options
   * @param {string} options.url Of the door, without resume parameters.
   * @param {string} options.key What to present as an API key.
   * @param {import("./outbox.js").Storage} options.storage Lasts as long as the tab.
   * @param {Handlers} options.on
   */
  constructor({ url, key, storage, on }) {
    this.#url = url;
    this.#key = key;
    this.#storage = storage;
    this.#on = on;
    this.#token = storage.get(TOKEN);
  }

  #url;
  #key;
  #storage;
  #on;
  /** @type {string | null} What the session is resumed with. */
  #token;
  /** @type {string | null} The last event seen of the session; null: none by this page. */
  #after = null;
  /** @type {WebSocket | null} The only socket that is listened to. */
  #socket = null;
  #isReady = false;
  #backoff = new Backoff(BACKOFF_MIN, BACKOFF_MAX);
  /** Attempts to connect that came to nothing. A balancer sends another number to another node. */
  #fruitless = 0;
  #readySince = 0;
  /** When the server last said that it is being restarted. */
  #restarted = -Infinity;
  #heard = 0;
  #probed = 0;
  /** @type {import("./refusal.js").ServerError | null} The last error, should the connection end now. */
  #error = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} Until the next attempt, or for this one to succeed. */
  #timer;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #ticker;

  /** What the session is resumed with; null: there is none yet. */
  get token() {
    return this.#token;
  }

  /** Whether events can be sent. */
  get isConnected() {
    return this.#isReady;
  }

  /** Connect now, whatever the state: to begin, instead of waiting, or after a stop. */
  connect() {
    this.#detach();
    this.#error = null;
    this.#on.state({ phase: "connecting" });
    const url = new URL(this.#url);
    if (this.#token !== null) {
      url.searchParams.set("resume", this.#token);
      if (this.#after !== null) url.searchParams.set("after", this.#after);
    }
    // Not every balancer knows when a node is frozen; by the same address, the same one would be asked for ever.
    if (this.#fruitless > 0) url.searchParams.set("try", String(this.#fruitless));
    let socket;
    try {
      socket = new WebSocket(url, ["realtime", `openai-insecure-api-key.${this.#key}`]);
    } catch {
      // The only way to get here: a key that can't be written into a header.
      this.#stop("invalid_api_key", "The key has characters that no key has.");
      return;
    }
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = ({ code }) => this.#closed(code);
    // Also for a connection that opens and then says nothing.
    this.#timer = setTimeout(() => this.#closed(1006), OPENING_TIMEOUT);
  }

  /** Connect at once if that is being waited for; otherwise make sure that the connection lives. */
  hurry() {
    if (this.#isReady) this.#examine(true);
    else if (this.#socket === null) this.connect();
  }

  /** Leave the session to itself, and begin another. */
  begin() {
    this.#forget();
    this.#backoff.reset();
    this.connect();
  }

  /** @param {string} key Present this one from now on. */
  useKey(key) {
    this.#key = key;
    this.#backoff.reset();
    this.connect();
  }

  /**
   * @param {object} event
   * @returns {boolean} Whether there was a connection to send it on. Not whether it has arrived.
   */
  send(event) {
    if (!this.#isReady || this.#socket === null) return false;
    // A session without input dies with its connection: before, its token would be worth nothing.
    this.#storage.set(TOKEN, this.#token);
    this.#socket.send(JSON.stringify(event));
    return true;
  }

  /** @param {any} event */
  #receive(event) {
    this.#heard = Date.now();
    this.#probed = 0;
    if (!this.#isReady) {
      // Until then there is no place in the log: ids of such errors aren't kept.
      if (event.type === "session.created") this.#ready(event);
      else if (event.type === "error") this.#refused(event.error);
      return;
    }
    if (typeof event.event_id === "string") this.#after = event.event_id;
    // Should the connection be closed now, this was why.
    this.#error = event.type === "error" ? event.error : null;
    const isSaved = event.type === "session.updated" ? event.session.unbroken.durable : undefined;
    if (isSaved !== undefined) this.#on.state({ phase: "connected", isSaved });
    this.#on.event(event);
  }

  /** @param {any} event */
  #ready(event) {
    clearTimeout(this.#timer);
    const { resume, resumed, durable } = event.session.unbroken;
    const continuity = this.#token === null ? "new" : resumed && this.#after !== null ? "continued" : "rebuilt";
    this.#token = resume;
    this.#after = event.event_id;
    // A session that is resumed had input, so its token may be kept at once.
    if (continuity !== "new") this.#storage.set(TOKEN, resume);
    this.#isReady = true;
    this.#restarted = -Infinity;
    this.#error = null;
    this.#readySince = Date.now();
    this.#ticker = setInterval(() => this.#examine(false), TICK);
    this.#on.state({ phase: "connected", isSaved: durable !== false });
    this.#on.session(event.session, continuity);
  }

  /** @param {import("./refusal.js").ServerError} error */
  #refused(error) {
    this.#error = error;
    if (error.code !== "session_not_found") return;
    const hadInput = this.#storage.get(TOKEN) !== null;
    this.#forget();
    this.#on.ended(hadInput);
    this.connect();
  }

  /** @param {number} code */
  #closed(code) {
    const wasReady = this.#isReady;
    const error = this.#error;
    this.#detach();
    if (code === TOO_LARGE) {
      this.#on.tooLarge();
    } else if (!RECONNECT.has(code)) {
      this.#stop(error?.code ?? `close_${code}`, error?.message ?? `The server closed the connection (${code}).`);
      return;
    }
    if (!wasReady) this.#fruitless += 1;
    if (wasReady && Date.now() - this.#readySince > STABLE_AFTER) this.#backoff.reset();
    const delay = this.#backoff.next(error);
    this.#timer = setTimeout(() => this.connect(), delay);
    if (code === RESTART) this.#restarted = Date.now();
    const isPlanned = Date.now() - this.#restarted < RESTART_TIME;
    const reason = isPlanned ? "" : (error?.message ?? "");
    this.#on.state({ phase: "waiting", until: Date.now() + delay, reason, isPlanned });
  }

  /** @param {string} code @param {string} reason */
  #stop(code, reason) {
    this.#detach();
    this.#on.state({ phase: "stopped", code, reason });
  }

  /** Let go of the socket without waiting: one that is dead takes its time to close. */
  #detach() {
    clearTimeout(this.#timer);
    clearInterval(this.#ticker);
    this.#isReady = false;
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #forget() {
    this.#token = this.#after = null;
    this.#storage.set(TOKEN, null);
  }

  /**
   * Find out whether a silent connection lives. Browsers don't tell: without this, a network
   * that went away without a word leaves a page that waits for an answer for minutes.
   *
   * @param {boolean} isUrgent The network has changed, or the machine may have slept.
   */
  #examine(isUrgent) {
    const now = Date.now();
    if (this.#probed !== 0) {
      if (now - this.#probed >= PROBE_TIMEOUT) this.#closed(1006);
      return;
    }
    if (now - this.#heard < (isUrgent ? PROBE_TIMEOUT : SILENCE)) return;
    const probe = this.#on.probe(isUrgent);
    if (probe === null) return;
    this.#probed = now;
    this.#socket?.send(JSON.stringify(probe)); // not send(): it is no input
  }
}
