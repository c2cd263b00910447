/** A turn: what was said, and the answer to it, as it comes. */
import type { Result } from "./answers.js";
/** What went wrong, by its code. */
export declare class ClientError extends Error {
    /** As in `docs/protocol.md`, or one of this client's own: `queue_full`, `closed`, `session_lost`. */
    readonly code: string;
    /** Seconds after which the same may succeed; null: nobody has said. */
    readonly retryAfter: number | null;
    constructor(
    /** As in `docs/protocol.md`, or one of this client's own: `queue_full`, `closed`, `session_lost`. */
    code: string, message: string, 
    /** Seconds after which the same may succeed; null: nobody has said. */
    retryAfter?: number | null);
}
/** The server failed to answer. */
export declare class AnswerFailed extends ClientError {
    /** What had been said of the answer. */
    readonly text: string;
    constructor(code: string, message: string, retryAfter: number | null, 
    /** What had been said of the answer. */
    text: string);
}
/**
 * What was read of the answer until now is void. This is the answer as it stands; what follows goes on from it.
 *
 * It comes when the server couldn't go on from where the connection was lost, and the answer isn't what it
 * was, or when it has begun the answer anew. As a string it is its text in a new line.
 */
export declare class Restarted {
    readonly text: string;
    constructor(text: string);
    toString(): string;
}
/** What comes of an answer: more of it, or all of it anew. */
export type Piece = string | Restarted;
/** What a turn shows of an answer, written by whoever gets it. Whoever is slow gets larger pieces, never a queue. */
export declare class Feed {
    #private;
    text: string;
    restarts: number;
    result: Result | null;
    error: ClientError | null;
    add(text: string): void;
    restart(text: string): void;
    end(result: Result): void;
    fail(error: ClientError): void;
    /** Wait until something changes. */
    change(): Promise<void>;
}
export declare class Turn implements AsyncIterable<Piece> {
    #private;
    /** Of the turn; of a message, it is the item's. */
    readonly id: string;
    /** Made by a client. */
    constructor(
    /** Of the turn; of a message, it is the item's. */
    id: string, feed: Feed, stop: () => void);
    /** What has been said so far. */
    get text(): string;
    /** Whether it has ended: `result` waits for nothing. */
    get isOver(): boolean;
    /** Stop it: before it was sent, before it is answered, or in mid-answer. What was said is kept. */
    stop(): void;
    /**
     * Wait for the end, and return the whole answer. One that was stopped or cut short is an answer, too.
     *
     * @throws AnswerFailed The server failed to answer, or lost the session before it had.
     * @throws ClientError It has refused the message for good, or the client was closed.
     */
    result(): Promise<Result>;
    /**
     * The answer from its beginning, piece by piece, each once, whatever connections do.
     *
     * @throws ClientError As `result` does, behind the last piece.
     */
    [Symbol.asyncIterator](): AsyncGenerator<Piece, void, void>;
}
