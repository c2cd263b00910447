/** A client: the core, with a socket, a clock and those who listen. */
import { Core } from "./core.js";
import { Socket } from "./socket.js";
import { described, runAll } from "./tool.js";
import { AnswerFailed, Feed, Turn, ClientError } from "./turn.js";
const MAX_UNSENT = 100;
const TOOL_TIMEOUT = 60_000;
const DOOR = "/v1/realtime";
const TICKET = "tk_";
const CLOSED = "The client was closed.";
/** Connect, and stay connected until the client is closed. Listeners that are set at once miss nothing. */
export function connect(options) {
    return new Client(options);
}
/** An id of so many random bytes, in base64url. */
export function randomId(bytes) {
    const values = crypto.getRandomValues(new Uint8Array(bytes));
    return btoa(String.fromCharCode(...values)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
export class Client {
    /** See `connect`. */
    constructor(options) {
        const { key, ticket, token, state = null, session, tools = [], maxUnsent = MAX_UNSENT } = options;
        this.#options = options;
        this.#url = doorOf(options.url, options.model);
        this.#key = key ?? ticket ?? "";
        this.#tools = new Map(tools.map((tool) => [tool.name, tool]));
        const offered = tools.length > 0 ? { tools: tools.map(described) } : {};
        this.#core = new Core({
            state,
            session: session === undefined && tools.length === 0 ? null : { type: "realtime", ...offered, ...session },
            maxUnsent,
            canRenew: token !== undefined,
            canRun: (name) => this.#tools.has(name),
            random: () => Math.random(),
            newId: randomId,
        });
        for (const id of this.#core.turns)
            this.#turn(id);
        // Not at once: whoever is given the client listens first.
        queueMicrotask(() => this.#do((now) => this.#core.start(now)));
    }
    #options;
    #url;
    #core;
    #tools;
    #listeners = new Map();
    /** Those of turns that haven't ended. */
    #turns = new Map();
    #running = new Map();
    #key;
    #socket = null;
    /** Counts the connections: what a former one waited for isn't wanted any more. */
    #connection = 0;
    #status = { phase: "connecting" };
    #timer;
    #timerDue = Infinity;
    #isPerforming = false;
    get status() {
        return this.#status;
    }
    get isConnected() {
        return this.#core.isConnected;
    }
    get activity() {
        return this.#core.activity;
    }
    /** Whether no more can wait to be sent. */
    get isFull() {
        return this.#core.isFull;
    }
    /** What the session is resumed with. A secret. Null: there is none yet. */
    get sessionToken() {
        return this.#core.token;
    }
    /** What another client is to go on with. Of this one, nothing is known any more then. */
    get state() {
        return this.#core.state;
    }
    /** The turns that haven't ended, in the order in which they were begun: those of a state that was given, too. */
    get turns() {
        return [...this.#turns.values()].map(({ turn }) => turn);
    }
    /** Have *listener* told from now on. Return how to end that. */
    on(name, listener) {
        const listeners = this.#listeners.get(name) ?? new Set();
        this.#listeners.set(name, listeners.add(listener));
        return () => void listeners.delete(listener);
    }
    /**
     * Say something, with or without a connection: it is sent once, in order, when what was said before is answered.
     *
     * @throws ClientError `queue_full`: as much waits as may. `closed`.
     */
    send(content, { note } = {}) {
        this.#checkRoom();
        const parts = typeof content === "string" ? [{ type: "input_text", text: content }] : content;
        // The turn is there before anybody is told of it.
        return this.#do((now) => this.#turn(this.#core.send(parts, note, now)));
    }
    /**
     * Have the message *item* answered again. Its *content* is needed should its session be gone: it is said anew then.
     *
     * @throws ClientError As `send` does.
     */
    retry(item, content, { drop = [], note } = {}) {
        this.#checkRoom();
        return this.#do((now) => this.#turn(this.#core.retry(item, content, drop, note, now)));
    }
    /**
     * Allow or refuse a call of the server's that needs approval: the item *request*. Null: nobody asks for it any more.
     *
     * @throws ClientError As `send` does.
     */
    decide(request, approve, reason) {
        this.#checkRoom();
        return this.#do((now) => {
            const id = this.#core.decide(request, approve, reason, now);
            return id === null ? null : this.#turn(id);
        });
    }
    /** Stop the answer that runs, or is asked for. Without a connection: as soon as there is one. */
    stop() {
        this.#do((now) => this.#core.stop(now));
    }
    /** Take back what was never sent: the turn's id. Return whether it was so. */
    withdraw(turn) {
        return this.#do((now) => this.#core.withdraw(turn, now));
    }
    /** Leave the session, and all that waits, and begin another. */
    begin() {
        this.#do((now) => this.#core.begin(now));
    }
    /** Connect now: instead of waiting, or after a stop. */
    reconnect() {
        this.#do((now) => this.#core.reconnect(now));
    }
    /** The network has changed, or the machine may have slept: connect, or make sure that the connection lives. */
    hurry() {
        this.#do((now) => this.#core.hurry(now));
    }
    /** Connect anew, with another key. */
    useKey(key) {
        this.#key = key;
        this.#do((now) => this.#core.useKey(now));
    }
    /** Leave for good. The session stays: take `state` to come back. */
    close() {
        if (this.#status.phase === "closed")
            return;
        this.#do(() => this.#core.close());
        clearTimeout(this.#timer);
        for (const abort of this.#running.values())
            abort.abort();
        for (const { feed } of this.#turns.values())
            feed.fail(new ClientError("closed", CLOSED));
        this.#running.clear();
        this.#turns.clear();
    }
    #checkRoom() {
        if (this.#status.phase === "closed")
            throw new ClientError("closed", CLOSED);
        if (this.isFull)
            throw new ClientError("queue_full", "As many messages wait to be sent as may.");
    }
    #turn(id) {
        const known = this.#turns.get(id);
        if (known !== undefined)
            return known.turn;
        const feed = new Feed();
        const turn = new Turn(id, feed, () => this.#do((now) => this.#core.stopTurn(id, now)));
        this.#turns.set(id, { turn, feed });
        return turn;
    }
    // What the core wants done.
    /** Tell the core something, and do what it wants done about it. */
    #do(tell) {
        const told = tell(Date.now());
        // Whoever is told something may say something: then that is performed behind it.
        if (!this.#isPerforming) {
            this.#isPerforming = true;
            try {
                this.#perform();
            }
            finally {
                this.#isPerforming = false;
            }
        }
        return told;
    }
    #perform() {
        for (let effects = this.#core.effects(); effects.length > 0; effects = this.#core.effects()) {
            // The state is that of after all of them, whichever asks for it.
            if (effects.some((effect) => effect.do === "save"))
                this.#tell("state", () => this.#core.state);
            for (const effect of effects)
                this.#one(effect);
        }
        if (this.#status.phase !== "closed")
            this.#setTimer();
    }
    #one(effect) {
        switch (effect.do) {
            case "open":
                return this.#open(effect.query, effect.isFresh);
            case "shut":
                this.#connection += 1;
                this.#socket?.shut();
                this.#socket = null;
                return;
            case "send":
                return this.#socket?.send(effect.event);
            case "call":
                return this.#call(effect.turn, effect.calls);
            case "abort":
                this.#running.get(effect.turn)?.abort();
                return;
            case "delta":
                return this.#turns.get(effect.turn)?.feed.add(effect.text);
            case "restart":
                return this.#turns.get(effect.turn)?.feed.restart(effect.text);
            case "end":
                return this.#end(effect.turn, (feed) => feed.end(effect.result));
            case "fail": {
                const { code, message, retryAfter, text } = effect.failure;
                return this.#end(effect.turn, (feed) => feed.fail(new AnswerFailed(code, message, retryAfter, text)));
            }
            case "refuse": {
                const { code, message, unbroken } = effect.error;
                const retryAfter = unbroken?.retry_after ?? null;
                return this.#end(effect.turn, (feed) => feed.fail(new ClientError(code, message, retryAfter)));
            }
            case "tell":
                if (effect.name === "status")
                    this.#status = effect.told;
                return this.#tell(effect.name, () => effect.told);
        }
    }
    #end(turn, end) {
        const known = this.#turns.get(turn);
        this.#turns.delete(turn);
        if (known !== undefined)
            end(known.feed);
    }
    #open(query, isFresh) {
        const { token } = this.#options;
        const connection = ++this.#connection;
        if (token === undefined || !(isFresh || query.resume === null || this.#key === "")) {
            this.#connect(query, connection);
            return;
        }
        const failed = (error) => {
            const message = error instanceof Error ? error.message : String(error);
            if (connection === this.#connection)
                this.#do((now) => this.#core.closed(1006, now, { code: "token", message }));
        };
        token().then((key) => {
            if (connection !== this.#connection)
                return;
            this.#key = key;
            this.#connect(query, connection);
        }, failed);
    }
    #connect(query, connection) {
        const url = new URL(this.#url);
        for (const [name, value] of Object.entries(query))
            if (value !== null)
                url.searchParams.set(name, value);
        const isTicket = this.#key.startsWith(TICKET);
        if (isTicket)
            url.searchParams.set("ticket", this.#key);
        const socket = new Socket(url, isTicket ? "" : this.#key, this.#options.WebSocket, {
            received: (event) => this.#do((now) => this.#core.receive(event, now)),
            closed: (code, error) => {
                if (connection === this.#connection)
                    this.#do((now) => this.#core.closed(code, now, error));
            },
        });
        // It may have been refused already.
        if (connection === this.#connection)
            this.#socket = socket;
    }
    #call(turn, calls) {
        const abort = new AbortController();
        this.#running.set(turn, abort);
        const { toolTimeout = TOOL_TIMEOUT } = this.#options;
        void runAll(calls, this.#tools, abort.signal, toolTimeout).then((outputs) => {
            if (this.#running.get(turn) !== abort)
                return;
            this.#running.delete(turn);
            this.#do((now) => this.#core.returned(turn, outputs, now));
        });
    }
    #setTimer() {
        const due = this.#core.wakeAt;
        if (due >= this.#timerDue)
            return; // there is one: it looks again
        clearTimeout(this.#timer);
        this.#timerDue = due;
        this.#timer = setTimeout(() => {
            this.#timerDue = Infinity;
            this.#do((now) => this.#core.wake(now));
        }, Math.max(0, due - Date.now()));
    }
    #tell(name, told) {
        const listeners = this.#listeners.get(name);
        if (listeners === undefined || listeners.size === 0)
            return;
        const value = told();
        for (const listener of [...listeners]) {
            try {
                listener(value);
            }
            catch (error) {
                // Theirs, not ours: it is reported like any exception that nobody catches, and nothing else suffers.
                queueMicrotask(() => {
                    throw error;
                });
            }
        }
    }
}
function doorOf(url, model) {
    const door = new URL(url);
    door.protocol = door.protocol.replace(/^http/, "ws");
    if (door.pathname === "/")
        door.pathname = DOOR;
    if (model !== undefined)
        door.searchParams.set("model", model);
    return door;
}
