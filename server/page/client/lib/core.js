/**
 * One client's conversation: what to send, what arrived, what isn't confirmed, when to try again. Pure.
 *
 * It is told what happens, and when, by its methods; what is to be done about it waits in `effects`, in order.
 * It has no socket and reads no clock, so whatever a network may do to it can be tried out.
 */
import { Answers } from "./answers.js";
import { Delivery, stageOf } from "./delivery.js";
import { Link } from "./link.js";
import { Log } from "./log.js";
import { Outbox, isTaken } from "./outbox.js";
/** How often who has asked again finds that nothing comes of it: each takes a silence of seconds. */
const MOST_DOUBTS = 2;
const SESSION_LOST = "session_lost";
const LOST = "The server lost the conversation before the answer was complete.";
export class Core {
    constructor(options) {
        const { state, canRenew, canRun, random, newId } = options;
        this.#options = options;
        this.#link = new Link({
            status: (status) => this.#status(status),
            open: (query, isFresh) => this.#effects.push({ do: "open", query, isFresh }),
            shut: () => this.#effects.push({ do: "shut" }),
            ready: (session, continuity) => this.#ready(session, continuity),
            ended: (hadInput) => this.#ended(hadInput),
            tooLarge: () => this.#delivery.tooLarge(),
            probe: (isUrgent) => this.#probe(isUrgent),
        }, state?.session ?? null, canRenew, random);
        this.#outbox = new Outbox(state?.unsent ?? [], () => this.#save());
        this.#delivery = new Delivery({
            send: (event) => this.#send(event),
            staged: (entry, stage, error) => this.#staged(entry, stage, error),
            complain: (error) => this.#tell("error", error),
            newRequest: () => newId(12),
        }, this.#outbox, this.#log, random);
        this.#answers = new Answers({
            delta: (turn, text) => this.#effects.push({ do: "delta", turn, text }),
            restart: (turn, text) => this.#effects.push({ do: "restart", turn, text }),
            end: (turn, result) => this.#end({ do: "end", turn, result }),
            fail: (turn, failure) => this.#end({ do: "fail", turn, failure }),
            refuse: (turn, error) => this.#end({ do: "refuse", turn, error }),
            call: (turn, calls) => this.#call(turn, calls),
            goOn: (turn) => this.#put("outputs", turn, turn, []),
        }, canRun);
        for (const { id, about, requests } of state?.begun ?? [])
            this.#answers.begin(id, about, requests);
        for (const { id, about } of this.#outbox)
            this.#answers.begin(id, about);
        this.#restored = this.#outbox.copy();
    }
    #options;
    #effects = [];
    #link;
    #log = new Log();
    #outbox;
    #delivery;
    #answers;
    /** What was unsent, until it is told. */
    #restored;
    /** Whether everything that happened before this connection has been seen. */
    #isCaughtUp = false;
    /** Whether the session is known to be as it should be. */
    #isSetUp = false;
    /** Events of this connection whose answer matters. */
    #expected = new Set();
    /** Turns whose functions run. */
    #calling = new Set();
    /** Whether the conversation was told as it stands: what had become of what was asked for may be forgotten. */
    #isSnapshot = false;
    /** The entry of which nobody may know any more that it was answered, and how often nothing has come of it. */
    #doubt = null;
    #wantsStop = false;
    /** Whether this connection has been told so. */
    #hasSentStop = false;
    #activity = "idle";
    /** As it was last told. */
    #now = 0;
    /** Take what is to be done, in order. */
    effects() {
        return this.#effects.splice(0);
    }
    /** When to call `wake`, in milliseconds; `Infinity`: not before something happens. */
    get wakeAt() {
        return Math.min(this.#link.wakeAt, this.#delivery.wakeAt);
    }
    get isConnected() {
        return this.#link.isReady;
    }
    get isFull() {
        return this.#outbox.size >= this.#options.maxUnsent;
    }
    get token() {
        return this.#link.token;
    }
    get activity() {
        return this.#activity;
    }
    /** The turns that haven't ended. */
    get turns() {
        return this.#answers.turns;
    }
    get state() {
        return { session: this.#link.kept, unsent: this.#outbox.copy(), begun: this.#answers.copy() };
    }
    // The connection.
    /** Tell of what is there from before, and connect. */
    start(now) {
        this.#now = now;
        const told = this.#restored.map((entry) => {
            return { do: "tell", name: "entry", told: { entry, stage: stageOf(entry) } };
        });
        this.#effects.unshift(...told); // before what was said since
        this.#restored = [];
        this.#link.connect(now);
    }
    /** Connect now, whatever the state. */
    reconnect(now) {
        this.#now = now;
        this.#link.connect(now);
        this.#refresh();
    }
    /** Connect at once if that is being waited for; otherwise make sure that the connection lives. */
    hurry(now) {
        this.#now = now;
        this.#link.hurry(now);
        this.#refresh();
    }
    /** Connect with another key. */
    useKey(now) {
        this.#now = now;
        this.#link.useKey(now);
        this.#refresh();
    }
    /** Leave the session to itself, with all that waits, and begin another. */
    begin(now) {
        this.#now = now;
        if (this.#isBusy && this.#link.isReady)
            this.#send({ type: "response.cancel" });
        this.#delivery.clear();
        for (const turn of this.#answers.turns)
            this.#answers.cancel(turn);
        this.#reset();
        this.#isSetUp = false;
        this.#link.begin(now);
        this.#save();
        this.#refresh();
    }
    close() {
        this.#link.close();
    }
    /** An event has come on the connection. */
    receive(event, now) {
        this.#now = now;
        if (this.#link.receive(event, now))
            this.#take(event);
        this.#refresh();
    }
    /** The connection is gone, or could not be had: then *error* may say why. */
    closed(code, now, error) {
        this.#now = now;
        this.#link.closed(code, now, error);
        this.#refresh();
    }
    /** Time has passed. */
    wake(now) {
        this.#now = now;
        this.#link.wake(now);
        if (this.#delivery.wake(now))
            this.#advance();
        this.#refresh();
    }
    // What is said.
    /** Say something. Return the turn that it begins. Ask `isFull` before. */
    send(content, note, now) {
        this.#now = now;
        const id = `msg_${this.#options.newId(16)}`;
        this.#put("message", id, id, [{ id, type: "message", role: "user", content }], { note });
        this.#link.want(now);
        this.#advance();
        return id;
    }
    /** Have the message *about* answered again, when the items *drop* are gone. In another session it is said again. */
    retry(about, content, drop, note, now) {
        this.#now = now;
        const id = `turn_${this.#options.newId(16)}`;
        const item = { id: about, type: "message", role: "user", content };
        this.#put("retry", id, about, [item], { drop, note, taken: [about] });
        this.#link.want(now);
        this.#advance();
        return id;
    }
    /** Answer a request for approval. Return the turn; null: nobody asks for it, or it has been decided. */
    decide(request, approve, reason, now) {
        this.#now = now;
        const isDecided = this.#outbox.find(({ kind, about }) => kind === "decision" && about === request) !== undefined;
        if (isDecided || !this.#log.isAsked(request))
            return null;
        const id = `apr_${this.#options.newId(16)}`;
        const said = { id, type: "mcp_approval_response", approval_request_id: request, approve };
        this.#put("decision", id, request, [reason === undefined ? said : { ...said, reason }]);
        this.#link.want(now);
        this.#advance();
        return id;
    }
    /** The turn's functions have returned. */
    returned(turn, outputs, now) {
        this.#now = now;
        if (!this.#calling.delete(turn))
            return; // nobody waits for it any more
        this.#answers.returned(turn);
        const items = outputs.map((output) => {
            return { id: `out_${this.#options.newId(16)}`, type: "function_call_output", ...output };
        });
        this.#put("outputs", turn, turn, items);
        this.#advance();
    }
    /** Take back a turn that was never sent. Return whether it was one. */
    withdraw(turn, now) {
        this.#now = now;
        const wasQueued = this.#delivery.withdraw(turn);
        this.#advance();
        return wasQueued;
    }
    /** Stop the answer, also one that hasn't begun. Without a connection: as soon as there is one. */
    stop(now) {
        this.#now = now;
        if (!this.#isBusy)
            return;
        for (const turn of this.#calling)
            this.#answers.cancel(turn);
        if (this.#delivery.isPaused && !this.#log.isAnswering) {
            this.#delivery.giveUp();
        }
        else if (this.#log.isAnswering || this.#delivery.isAsking) {
            this.#wantsStop = true;
            this.#hasSentStop = false;
        }
        this.#advance();
    }
    /** Stop this turn, wherever it is. Others go on. */
    stopTurn(turn, now) {
        this.#now = now;
        if (this.withdraw(turn, now))
            return;
        const runs = this.#calling.has(turn) || this.#answers.responseOf(turn) !== null;
        if (runs)
            return this.stop(now);
        if (this.#outbox.first?.id !== turn)
            return;
        if (!this.#log.isAnswering)
            return this.stop(now);
        this.#delivery.giveUp(); // it waits behind another client's answer
        this.#advance();
    }
    // What follows.
    #take(event) {
        const known = event;
        this.#log.take(known);
        // Before what shows the conversation is told: what it knows to wait doesn't, any more.
        if (known.type === "response.created")
            this.#delivery.acknowledge(known.response);
        if (known.type !== "error")
            this.#tell("event", event);
        switch (known.type) {
            case "error":
                return this.#failed(known.error);
            case "session.updated":
                this.#isSetUp = true;
                return;
            case "conversation.item.added":
                this.#delivery.heard(known.item.id);
                if (known.item.type === "mcp_approval_response")
                    this.#advance();
                return;
            case "conversation.item.done":
                return this.#answers.noted(known.item, known.previous_item_id);
            case "conversation.item.deleted":
                return this.#answers.deleted(known.item_id);
            case "response.created":
                this.#answers.created(known.response);
                return this.#advance();
            case "response.output_text.delta":
                return this.#answers.said(known.response_id, known.item_id, known.delta);
            case "response.done":
                this.#answers.done(known.response);
                if (this.#answers.isDoubtful)
                    this.#ask();
                if (!this.#log.isAnswering)
                    this.#wantsStop = false;
                return this.#advance();
        }
    }
    #failed(error) {
        const name = error.event_id ?? "";
        if (!this.#delivery.refused(error, this.#now)) {
            // After a reload, old refusals are told again, and a client of the same state is told of its twin's:
            // those of events that this one doesn't wait for are no news.
            if (!this.#expected.delete(name))
                return;
            if (name.endsWith(".question"))
                return this.#caughtUp();
            if (name.endsWith(".session")) {
                this.#isSetUp = true; // asked for again, it would be refused again
                return this.#tell("error", error);
            }
            // A stop that came too late is none. But one that found nothing to stop means that
            // nothing is going to answer the message, either.
            this.#wantsStop = false;
            if (!this.#log.isAnswering)
                this.#delivery.forsake();
        }
        this.#advance();
    }
    #status(status) {
        if (status.phase !== "connected")
            this.#isCaughtUp = false;
        this.#tell("status", status);
    }
    #ready(session, continuity) {
        this.#delivery.reconnect();
        this.#hasSentStop = false;
        this.#expected.clear();
        this.#tell("session", { session, continuity });
        if (continuity !== "continued")
            this.#log.reset();
        if (continuity === "rebuilt") {
            this.#wantsStop = false;
            this.#isSnapshot = session.unbroken.resumed === false;
            this.#delivery.rebuild();
            this.#answers.rebuild();
            this.#tell("reset", { reason: "snapshot", hadInput: true });
        }
        if (!this.#isSetUp)
            this.#setUp();
        this.#save();
        // What is ours alone is answered only when the log has been read: so everything that the
        // server has of us is known by then, and only the rest is sent again.
        const isOpen = this.#outbox.size > 0 || this.#answers.turns.length > 0 || this.#wantsStop;
        this.#isCaughtUp = continuity === "new" || !isOpen;
        if (!this.#isCaughtUp)
            this.#ask();
        this.#advance();
    }
    #ended(hadInput) {
        const living = new Set();
        for (const { id, kind } of this.#outbox)
            if (kind === "message" || kind === "retry")
                living.add(id);
        this.#answers.lose(living, SESSION_LOST, LOST);
        this.#isSetUp = false;
        this.#tell("reset", { reason: "ended", hadInput });
        this.#reset();
        this.#delivery.begin({ code: SESSION_LOST, message: LOST });
        this.#save();
    }
    #caughtUp() {
        this.#isCaughtUp = true;
        const waiting = new Set();
        for (const entry of this.#outbox) {
            if (this.#isSnapshot && this.#isFound(entry))
                this.#delivery.found(entry);
            else
                waiting.add(entry.id);
        }
        this.#answers.caughtUp(waiting);
        this.#doubtFirst();
        if (!this.#isBusy)
            this.#wantsStop = false;
        this.#advance();
    }
    /** Whether the entry was answered by a response that is forgotten. */
    #isFound(entry) {
        const last = entry.items.at(-1)?.id ?? entry.about;
        return entry.sent && isTaken(entry) && this.#answers.stands(last, entry.drop);
    }
    /**
     * Behind a snapshot, an answer without a word leaves no trace: asked for again, it doesn't come, for that was taken.
     *
     * So who has asked again, and twice found that nothing comes, is told that nobody knows.
     */
    #doubtFirst() {
        const { first } = this.#outbox;
        const isSnapshot = this.#isSnapshot;
        this.#isSnapshot = false;
        if (isSnapshot && first?.sent === true)
            this.#doubt = { id: first.id, count: 0 };
        else if (this.#doubt === null || this.#log.isAnswering)
            return;
        else if (this.#doubt.id !== first?.id || this.#delivery.isPaused)
            this.#doubt = null;
        else if (++this.#doubt.count === MOST_DOUBTS) {
            this.#doubt = null;
            this.#answers.forget(first.id);
            this.#delivery.forget();
        }
    }
    #reset() {
        this.#isSnapshot = false;
        this.#doubt = null;
        this.#log.reset();
        this.#wantsStop = false;
    }
    #staged(entry, stage, error) {
        this.#tell("entry", error === undefined ? { entry, stage } : { entry, stage, error });
        if (stage === "refused")
            this.#answers.refuse(entry.id, error ?? { code: SESSION_LOST, message: LOST });
        else if (stage === "withdrawn")
            this.#answers.cancel(entry.id);
        // A decision that others are waited for is answered by what follows the last of them.
        else if (stage === "answered" && entry.request === "")
            this.#answers.complete(entry.id);
        else if (stage === "answered")
            this.#answers.asked(entry.id, entry.request);
    }
    #call(turn, calls) {
        if (this.#calling.has(turn))
            return; // they run already
        this.#calling.add(turn);
        this.#effects.push({ do: "call", turn, calls });
    }
    #end(effect) {
        if (this.#calling.delete(effect.turn))
            this.#effects.push({ do: "abort", turn: effect.turn });
        this.#effects.push(effect);
        this.#save();
    }
    #put(kind, id, about, items, more = {}) {
        this.#answers.begin(id, about);
        const { note, ...rest } = more;
        const noted = note === undefined ? rest : { ...rest, note };
        const request = this.#options.newId(12);
        this.#delivery.put({ id, kind, about, items, drop: [], request, former: [], sent: false, taken: [], ...noted });
    }
    // What is sent.
    get #isBusy() {
        return this.#log.isAnswering || this.#delivery.isAsking || this.#calling.size > 0;
    }
    /** Send what can be sent now. */
    #advance() {
        if (this.#link.isReady && this.#isCaughtUp) {
            if (!this.#log.isAnswering && this.#calling.size === 0 && !this.#answers.isDoubtful)
                this.#delivery.advance();
            if (this.#wantsStop && this.#isBusy && !this.#hasSentStop)
                this.#sendStop();
        }
        this.#refresh();
    }
    #sendStop() {
        this.#hasSentStop = true;
        // Named where possible: another client's next answer isn't meant.
        const targets = this.#log.isAnswering ? this.#log.responses : [undefined];
        for (const id of targets) {
            const event_id = this.#expect("stop");
            const stop = { type: "response.cancel", event_id };
            this.#send(id === undefined ? stop : { ...stop, response_id: id });
        }
    }
    #send(event) {
        const before = this.#link.kept;
        this.#link.use(this.#now);
        if (this.#link.kept !== before)
            this.#save();
        this.#effects.push({ do: "send", event });
    }
    #setUp() {
        const { session } = this.#options;
        if (session === null)
            return;
        const event = { type: "session.update", event_id: this.#expect("session"), session };
        this.#effects.push({ do: "send", event });
    }
    #probe(isUrgent) {
        const isWaiting = isUrgent || this.#isBusy || !this.#isCaughtUp;
        if (isWaiting)
            this.#ask();
        return isWaiting;
    }
    /** Send what changes nothing and is answered when all before it was told. */
    #ask() {
        const event_id = this.#expect("question");
        const event = { type: "conversation.item.retrieve", item_id: `no_${event_id}`, event_id };
        this.#effects.push({ do: "send", event });
    }
    #expect(what) {
        const name = `${this.#options.newId(9)}.${what}`;
        this.#expected.add(name);
        return name;
    }
    #save() {
        this.#effects.push({ do: "save" });
    }
    #refresh() {
        const activity = !this.#isBusy ? "idle" : this.#wantsStop ? "stopping" : "answering";
        if (activity === this.#activity)
            return;
        this.#activity = activity;
        this.#tell("activity", activity);
    }
    #tell(name, told) {
        this.#effects.push({ do: "tell", name, told });
    }
}
