/**
 * What turns come to: the text of each as it grows, and how it ends. Each piece is told once. Pure.
 *
 * Where the log is told anew, what a turn has been told is compared with what there is now: usually only the
 * rest is told. Where the two don't fit, the turn is told so, and gets the text from its beginning.
 */
import type { Item, Response, ServerError } from "./wire.js";
/** A function that the agent calls. */
export interface Call {
    readonly call_id: string;
    readonly name: string;
    /** As the model wrote them: JSON, if it did as it was told. */
    readonly arguments: string;
}
/** How a turn ended. */
export interface Result {
    /** unknown: the server doesn't know any more; what is known of the answer is its text, which may be cut short. */
    readonly status: "completed" | "cancelled" | "incomplete" | "unknown";
    /** The whole answer; behind a call of functions too. */
    readonly text: string;
    /**
     * Why it is `incomplete` (`max_output_tokens`, `content_filter`, `quota_exceeded`) or `cancelled`
     * (`client_cancelled`, `superseded`); else null.
     */
    readonly reason: string | null;
    /** What was billed for the last response; null: nobody has said. */
    readonly usage: Readonly<Record<string, unknown>> | null;
    /** Functions that were called and that this client doesn't run. */
    readonly calls: readonly Call[];
    /** Calls that wait for somebody's approval. */
    readonly approvals: readonly Item[];
    /** The last response, as the server shows it; null: it was forgotten, or there was none. */
    readonly response: Response | null;
}
/** How an answer failed. */
export interface Failure {
    readonly code: string;
    readonly message: string;
    readonly retryAfter: number | null;
    readonly text: string;
}
/** How a turn ends, once its answer has begun. */
export type Ending = Result | Failure;
/** A turn whose answer has begun, as it is kept. */
export interface BegunTurn {
    readonly id: string;
    readonly about: string;
    /** The names of its wishes for an answer: one, and one more for each time that functions were called. */
    readonly requests: readonly string[];
}
/** What turns have done. */
export interface AnswerTasks {
    /** More was said. */
    delta(turn: string, text: string): void;
    /** What was told is void; this is the text so far. */
    restart(turn: string, text: string): void;
    end(turn: string, result: Result): void;
    fail(turn: string, failure: Failure): void;
    refuse(turn: string, error: ServerError): void;
    /** Run these functions, and say what they returned. */
    call(turn: string, calls: readonly Call[]): void;
    /** Their functions have returned, as the log tells: ask for the answer to that. */
    goOn(turn: string): void;
}
export declare class Answers {
    #private;
    /** @param canRun Whether this client runs functions of that name. */
    constructor(tasks: AnswerTasks, canRun: (name: string) => boolean);
    /** The turns that haven't ended. */
    get turns(): readonly string[];
    /** Whether an end isn't certain: then the log has to tell what follows. */
    get isDoubtful(): boolean;
    /** Those whose answers have begun, as they are kept. */
    copy(): BegunTurn[];
    /** A turn begins, or goes on. *requests*: it is known from before. */
    begin(id: string, about: string, requests?: readonly string[]): void;
    /** What was asked for under that name is the turn's. */
    asked(id: string, request: string): void;
    /** The turn's functions have returned. */
    returned(id: string): void;
    /** The response of a turn that runs; null: none does. */
    responseOf(id: string): string | null;
    /** What became of it is forgotten. */
    forget(id: string): void;
    /** It was stopped, or nobody waits for it, and nothing more comes of it. */
    cancel(id: string): void;
    /** It ends without another answer: a decision, where others are waited for. */
    complete(id: string): void;
    refuse(id: string, error: ServerError): void;
    /** The session has ended. All fail but those of *living*, which go to the next one. */
    lose(living: ReadonlySet<string>, code: string, message: string): void;
    /** The log is told anew. */
    rebuild(): void;
    created({ id, metadata }: Response): void;
    said(response: string, item: string, text: string): void;
    /** An item is in the conversation, and whole: behind *previous*, or before all others. */
    noted(item: Item, previous: string | undefined): void;
    /**
     * Whether, as the log has been told anew, an answer stands behind the item *id*, other than *drop*.
     *
     * Its response may be forgotten: then nothing else tells that what was asked for has been answered.
     */
    stands(id: string, drop: readonly string[]): boolean;
    /** An item isn't in the conversation any more. */
    deleted(id: string): void;
    done(response: Response): void;
    /**
     * All that happened before has been told.
     *
     * @param waiting The turns that have something waiting to be sent.
     */
    caughtUp(waiting: ReadonlySet<string>): void;
}
