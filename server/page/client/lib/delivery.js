/**
 * Brings what was said to the server: each once, in order, the next when the last is answered. Pure.
 *
 * An entry is kept until the server is known to have it, and sent again under the same names after a
 * reconnect or a reload: the server takes each name once. What it refuses for the moment is sent again
 * after growing pauses; what it refuses for good is given back.
 */
import { Backoff } from "./backoff.js";
import { isInConversation } from "./log.js";
import { isTaken } from "./outbox.js";
import { eventsOf, partOf } from "./parcel.js";
import { isRemembered, isThere, passingWords } from "./refusals.js";
const ACTIVE = "conversation_already_has_active_response";
/** Milliseconds before what was refused is sent again. */
const PATIENCE_LEAST = 2_000;
const PATIENCE_MOST = 30_000;
/** Names that are remembered of what isn't wanted any more, and of an entry. */
const MOST_NAMES = 64;
const TOO_LARGE = {
    code: "frame_too_large",
    message: "The server takes no message of this length.",
};
export class Delivery {
    constructor(tasks, outbox, log, random) {
        this.#tasks = tasks;
        this.#outbox = outbox;
        this.#log = log;
        this.#patience = new Backoff(PATIENCE_LEAST, PATIENCE_MOST, random);
    }
    #tasks;
    /** Only its first entry is ever sent. */
    #outbox;
    #log;
    #patience;
    /** What was sent on this connection and isn't settled. */
    #flying = null;
    /** When the first entry is sent again; null: nothing was refused. */
    #pausedUntil = null;
    /** Requests that nobody wants answered any more: an answer to them is stopped. */
    #void = [];
    /** Whether an answer was asked for that hasn't begun. */
    get isAsking() {
        return this.#outbox.first?.sent === true;
    }
    /** Whether what was refused is about to be sent again. */
    get isPaused() {
        return this.#pausedUntil !== null;
    }
    /** When to call `wake`; `Infinity`: nothing waits. */
    get wakeAt() {
        return this.#pausedUntil ?? Infinity;
    }
    // What whoever uses it wants.
    put(entry) {
        if (entry.kind === "outputs")
            this.#outbox.addFirst(entry);
        else
            this.#outbox.add(entry);
        this.#show(entry);
    }
    /** Take back an entry that was never sent. Return whether it was one. */
    withdraw(id) {
        const entry = this.#outbox.find((each) => each.id === id && !each.sent);
        if (entry !== undefined)
            this.#take(entry, "withdrawn");
        return entry !== undefined;
    }
    /** Take back what is sent next, or waits to be sent again. Should it be answered all the same, that is stopped. */
    giveUp() {
        const entry = this.#outbox.first;
        if (entry !== undefined)
            this.#avoid(entry.request, ...entry.former);
        this.#endPause();
        if (entry !== undefined)
            this.#take(entry, "withdrawn");
    }
    /** Nothing is going to answer what was sent: its answer was stopped before it began. */
    forsake() {
        if (this.#flying !== null && isTaken(this.#flying))
            this.#take(this.#flying, "withdrawn");
    }
    /** Forget everything. */
    clear() {
        for (const entry of this.#outbox)
            this.#take(entry, "withdrawn");
        this.#endPause();
    }
    // What the connection does.
    /** There is another connection: what was sent on the last one may have been lost. */
    reconnect() {
        this.#flying = null;
    }
    /** The log is told anew: what it doesn't tell, the server hasn't got. */
    rebuild() {
        for (const entry of this.#outbox)
            this.#outbox.change(entry, { taken: [] });
    }
    /**
     * The session has ended: what it hasn't answered goes to the next, as if it hadn't been sent.
     *
     * But for what can't be answered anywhere else: that is refused.
     */
    begin(error) {
        this.#endPause();
        this.#void = [];
        for (const entry of this.#outbox) {
            if (entry.kind === "decision" || entry.kind === "outputs") {
                this.#refuse(entry, error);
            }
            else {
                delete entry.late;
                this.#outbox.change(entry, { taken: [], sent: false, drop: [] });
                this.#show(entry);
            }
        }
    }
    /** The entry has been answered, as what stands in the conversation tells. */
    found(entry) {
        this.#take(entry, "answered");
    }
    /** The first entry was sent, taken and answered, and what by is forgotten: nothing more will come of it. */
    forget() {
        const entry = this.#outbox.first;
        if (entry === undefined)
            return;
        this.#avoid(entry.request, ...entry.former);
        this.#take(entry, "answered", "");
    }
    tooLarge() {
        if (this.#flying !== null)
            this.#refuse(this.#flying, TOO_LARGE);
    }
    /** Time has passed. Return whether something can be sent again. */
    wake(now) {
        if (this.#pausedUntil === null || now < this.#pausedUntil)
            return false;
        this.#endPause();
        return true;
    }
    /** Send what can be sent. Call while there is a connection, all before it is known, and nothing is answered. */
    advance() {
        const first = this.#outbox.first;
        if (first === undefined || first === this.#flying || this.isPaused)
            return;
        this.#flying = first;
        this.#outbox.change(first, { sent: true }); // also after a reload, it can't be taken back
        this.#show(first);
        for (const event of eventsOf(first))
            this.#tasks.send(event);
    }
    // What the server says.
    /** An item is in the conversation, whoever sent it. */
    heard(id) {
        const entry = this.#outbox.find(({ items, taken }) => items.some((item) => item.id === id) && !taken.includes(id));
        if (entry !== undefined)
            this.#accept(entry, id);
    }
    /** A response has begun. */
    acknowledge(response) {
        const request = response.metadata?.["request"] ?? "";
        const stop = () => {
            // Named, so that nothing is made of it should the response be over.
            const event_id = `${this.#tasks.newRequest()}.stop`;
            this.#tasks.send({ type: "response.cancel", event_id, response_id: response.id });
        };
        if (this.#void.includes(request))
            return stop();
        const named = this.#outbox.find((each) => each.request === request || each.former.includes(request));
        // What was asked for with an item that was refused is an answer to what had been said before.
        if (named?.former.includes(request) === true && !isTaken(named))
            return stop();
        // Whatever was asked for by others after a decision acts on it, too.
        const entry = named ?? this.#outbox.find((each) => isInConversation(response) && this.#isDecided(each));
        if (entry === undefined)
            return;
        this.#patience.reset();
        this.#avoid(...[entry.request, ...entry.former].filter((name) => name !== request));
        this.#take(entry, "answered", request);
    }
    /** Take in an error. Return whether it is about something that is on its way. */
    refused(error, now) {
        if (error.event_id === undefined) {
            this.#refusedNameless(error, now);
            return true;
        }
        const { request, part, item } = partOf(error.event_id);
        const entry = this.#outbox.find((each) => each.request === request);
        if (entry !== undefined)
            this.#refused(entry, part, item, error, now);
        return entry !== undefined;
    }
    /** An event was dropped without having been read: the server can't say which. */
    #refusedNameless(error, now) {
        const words = passingWords(error);
        if (words === null)
            this.#tasks.complain(error);
        else if (this.#flying !== null && !this.#log.isAnswering)
            this.#postpone(this.#flying, "item", error, words, now);
    }
    #refused(entry, part, item, error, now) {
        const words = passingWords(error);
        if (part === "drop")
            return; // it is gone already
        if (part === "item" && isThere(error)) {
            this.#accept(entry, item);
        }
        else if (error.code === ACTIVE) {
            // Another client was faster. A refusal is remembered under its name, so ask under another.
            this.#rename(entry);
            if (this.#log.isAnswering)
                this.#flying = null;
            else
                this.#pause(error, now);
        }
        else if (words !== null) {
            this.#postpone(entry, part, error, words, now);
        }
        else {
            this.#avoid(entry.request, ...entry.former); // the answer is asked for already
            this.#refuse(entry, error);
        }
    }
    /** Send what was refused for the moment again, later. */
    #postpone(entry, part, error, words, now) {
        const isWhole = part === "item" && !isTaken(entry);
        // A refusal may be remembered under its name, and the answer that was asked for with it is not to come.
        if (isWhole || isRemembered(error))
            this.#rename(entry);
        this.#outbox.change(entry, { late: words });
        this.#show(entry);
        this.#pause(error, now);
    }
    #rename(entry) {
        const former = [...entry.former, entry.request].slice(-MOST_NAMES);
        this.#outbox.change(entry, { request: this.#tasks.newRequest(), former });
    }
    #avoid(...requests) {
        this.#void = [...this.#void, ...requests].slice(-MOST_NAMES);
    }
    /** The server has one of its items. */
    #accept(entry, item) {
        this.#outbox.change(entry, { taken: [...entry.taken, item] });
        this.#show(entry);
        if (entry.kind !== "decision")
            return;
        if (entry === this.#flying)
            this.#flying = null;
        // Who decides last has the model go on: it gets to know all results at once.
        if (this.#log.isWaiting)
            this.#take(entry, "answered", "");
    }
    /** Whether it is a decision that the log has told of. */
    #isDecided(entry) {
        return entry.kind === "decision" && isTaken(entry) && !this.#log.isAsked(entry.about);
    }
    /** The server hasn't got it, or doesn't answer it, and is never to. */
    #refuse(entry, error) {
        this.#take(entry, "refused", entry.request, error);
    }
    /** It waits no more. *request*: what its answer was asked for by; empty: nobody knows. */
    #take(entry, stage, request = entry.request, error) {
        this.#outbox.remove(entry);
        if (entry === this.#flying)
            this.#flying = null;
        this.#tasks.staged({ ...entry, request }, stage, error);
    }
    /** In a pause, no refusal is heard any more. */
    #pause(error, now) {
        this.#pausedUntil ??= now + this.#patience.next(error);
    }
    #endPause() {
        this.#pausedUntil = null;
        this.#flying = null;
    }
    #show(entry) {
        this.#tasks.staged({ ...entry }, stageOf(entry));
    }
}
/** How an entry stands that waits. */
export function stageOf(entry) {
    if (entry.late !== undefined)
        return "waiting";
    if (isTaken(entry))
        return "taken";
    return entry.sent ? "sending" : "queued";
}
