/** A turn: what was said, and the answer to it, as it comes. */
/** What went wrong, by its code. */
export class ClientError extends Error {
    code;
    retryAfter;
    constructor(
    /** As in `docs/protocol.md`, or one of this client's own: `queue_full`, `closed`, `session_lost`. */
    code, message, 
    /** Seconds after which the same may succeed; null: nobody has said. */
    retryAfter = null) {
        super(message);
        this.code = code;
        this.retryAfter = retryAfter;
        this.name = "ClientError";
    }
}
/** The server failed to answer. */
export class AnswerFailed extends ClientError {
    text;
    constructor(code, message, retryAfter, 
    /** What had been said of the answer. */
    text) {
        super(code, message, retryAfter);
        this.text = text;
        this.name = "AnswerFailed";
    }
}
/**
 * What was read of the answer until now is void. This is the answer as it stands; what follows goes on from it.
 *
 * It comes when the server couldn't go on from where the connection was lost, and the answer isn't what it
 * was, or when it has begun the answer anew. As a string it is its text in a new line.
 */
export class Restarted {
    text;
    constructor(text) {
        this.text = text;
    }
    toString() {
        return `\n${this.text}`;
    }
}
/** What a turn shows of an answer, written by whoever gets it. Whoever is slow gets larger pieces, never a queue. */
export class Feed {
    text = "";
    restarts = 0;
    result = null;
    error = null;
    #waiting = [];
    add(text) {
        this.text += text;
        this.#wake();
    }
    restart(text) {
        this.text = text;
        this.restarts += 1;
        this.#wake();
    }
    end(result) {
        this.result = result;
        this.#wake();
    }
    fail(error) {
        this.error = error;
        this.#wake();
    }
    /** Wait until something changes. */
    change() {
        return new Promise((resolve) => this.#waiting.push(resolve));
    }
    #wake() {
        const waiting = this.#waiting;
        this.#waiting = [];
        for (const wake of waiting)
            wake();
    }
}
export class Turn {
    id;
    /** Made by a client. */
    constructor(
    /** Of the turn; of a message, it is the item's. */
    id, feed, stop) {
        this.id = id;
        this.#feed = feed;
        this.#stop = stop;
    }
    #feed;
    #stop;
    /** What has been said so far. */
    get text() {
        return this.#feed.text;
    }
    /** Whether it has ended: `result` waits for nothing. */
    get isOver() {
        return this.#feed.result !== null || this.#feed.error !== null;
    }
    /** Stop it: before it was sent, before it is answered, or in mid-answer. What was said is kept. */
    stop() {
        if (!this.isOver)
            this.#stop();
    }
    /**
     * Wait for the end, and return the whole answer. One that was stopped or cut short is an answer, too.
     *
     * @throws AnswerFailed The server failed to answer, or lost the session before it had.
     * @throws ClientError It has refused the message for good, or the client was closed.
     */
    async result() {
        const feed = this.#feed;
        for (;;) {
            if (feed.result !== null)
                return feed.result;
            if (feed.error !== null)
                throw feed.error;
            await feed.change();
        }
    }
    /**
     * The answer from its beginning, piece by piece, each once, whatever connections do.
     *
     * @throws ClientError As `result` does, behind the last piece.
     */
    async *[Symbol.asyncIterator]() {
        const feed = this.#feed;
        let seen = 0;
        let { restarts } = feed;
        for (;;) {
            if (feed.restarts !== restarts) {
                restarts = feed.restarts;
                seen = feed.text.length;
                yield new Restarted(feed.text);
            }
            else if (seen < feed.text.length) {
                const text = feed.text.slice(seen);
                seen = feed.text.length;
                yield text;
            }
            else if (feed.error !== null) {
                throw feed.error;
            }
            else if (feed.result !== null) {
                return;
            }
            else {
                await feed.change();
            }
        }
    }
}
