/**
 * One session over many connections: when to connect, with what, and when to give a connection up. Pure.
 *
 * It reads no clock and has no socket: it is told what happened and when, and says what to do.
 */
import type { ServerError, ServerEvent, Session } from "./wire.js";
/**
 * How the connection stands. `until` is in milliseconds of `Date.now()`; `reason` is for people, and may be
 * empty. Planned: the server is being restarted, and nothing is wrong. Stopped: it isn't tried again by itself.
 */
export type Status = {
    readonly phase: "connecting";
} | {
    readonly phase: "connected";
    readonly isSaved: boolean;
} | {
    readonly phase: "waiting";
    readonly until: number;
    readonly reason: string;
    readonly isPlanned: boolean;
} | {
    readonly phase: "stopped";
    readonly code: string;
    readonly reason: string;
} | {
    readonly phase: "closed";
};
/**
 * How a session follows what was there before. new: it is another one. continued: exactly where the connection
 * was lost. rebuilt: the same one, told from its beginning; what is shown of it is void.
 */
export type Continuity = "new" | "continued" | "rebuilt";
/** What the address of a connection says, beside where the server is. */
export type Query = Readonly<Record<"resume" | "after" | "try", string | null>>;
/** What a link has done. */
export interface LinkTasks {
    status(status: Status): void;
    /** Open a connection; there is none. Fresh: with a key that hasn't been tried yet, if there can be one. */
    open(query: Query, isFresh: boolean): void;
    /** Let go of the connection, whatever becomes of it. */
    shut(): void;
    /** It can be used. */
    ready(session: Session, continuity: Continuity): void;
    /** The session is gone from the server. Another one is begun. */
    ended(hadInput: boolean): void;
    /** What was sent last is larger than the server takes. */
    tooLarge(): void;
    /** Send what the server is sure to answer; false: nothing is being waited for. Urgent: there is reason to doubt. */
    probe(isUrgent: boolean): boolean;
}
export declare class Link {
    #private;
    /**
     * @param token What the session is resumed with; null: there is none.
     * @param canRenew Whether another key can be had.
     */
    constructor(tasks: LinkTasks, token: string | null, canRenew: boolean, random: () => number);
    /** What the session is resumed with; null: there is none yet. */
    get token(): string | null;
    /** What to resume it with later, by whomever; null: nothing would be lost. */
    get kept(): string | null;
    get isReady(): boolean;
    /** When to call `wake`. May be long past, and `Infinity`. */
    get wakeAt(): number;
    /** Connect now, whatever the state: to begin, instead of waiting, or after a stop. */
    connect(now: number, isFresh?: boolean): void;
    /** Connect at once if that is being waited for; otherwise make sure that the connection lives. */
    hurry(now: number): void;
    /** Leave the session to itself, and begin another. */
    begin(now: number): void;
    /** Connect with another key. */
    useKey(now: number): void;
    /** There is something to say: connect, if the connection was closed for want of it. */
    want(now: number): void;
    /** Something is about to be sent. */
    use(now: number): void;
    /** Leave for good. */
    close(): void;
    /** Take in an event; false: it is about the connection, and nobody else's business. */
    receive(event: ServerEvent, now: number): boolean;
    /** The connection is gone, or could not be had. *error* is why, where the server's events haven't said so. */
    closed(code: number, now: number, error?: ServerError | null): void;
    /** Time has passed. */
    wake(now: number): void;
}
