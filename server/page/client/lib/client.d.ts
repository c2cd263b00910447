/** A client: the core, with a socket, a clock and those who listen. */
import type { Activity, Happenings, State } from "./effects.js";
import type { Status } from "./link.js";
import type { WebSocketClass } from "./socket.js";
import type { Tool } from "./tool.js";
import { Turn } from "./turn.js";
import type { ContentPart } from "./wire.js";
/** What there is to say of how to connect. One of `key`, `ticket` and `token` says who is speaking. */
export interface ConnectOptions {
    /** Where the server is. `http:` is as good as `ws:`, and `/v1/realtime` needs no saying. */
    readonly url: string | URL;
    /** Presented as an API key: in a page a short-lived one, `ek_...`. */
    readonly key?: string;
    /** Good for one session: `tk_...`. */
    readonly ticket?: string;
    /** Gets a key or a ticket. Asked for each session, and again when the last one isn't good any more. */
    readonly token?: () => Promise<string>;
    readonly model?: string;
    /** To go on where another client was: what that one's `state` was last. */
    readonly state?: State | null;
    /** What sessions are to be like: the fields of `session.update`. */
    readonly session?: Readonly<Record<string, unknown>>;
    /** Functions that the agent may call, run here. */
    readonly tools?: readonly Tool[];
    /** Milliseconds that a tool may take; 60,000, unless said. */
    readonly toolTimeout?: number;
    /** How much may wait to be sent; 100, unless said. */
    readonly maxUnsent?: number;
    /** Instead of the global one, where there is none: such as that of npm's `ws`. */
    readonly WebSocket?: WebSocketClass;
}
/** All that can be listened to. */
export interface ClientEvents extends Happenings {
    /** It has changed, and is to be kept before anything further is sent. */
    state: State;
}
type Listener<Name extends keyof ClientEvents> = (told: ClientEvents[Name]) => void;
export interface SendOptions {
    /** Whatever belongs to it, as JSON: `entry` events have it. */
    readonly note?: unknown;
}
export interface RetryOptions extends SendOptions {
    /** Of the last answer: items to remove before another. */
    readonly drop?: readonly string[];
}
/** Connect, and stay connected until the client is closed. Listeners that are set at once miss nothing. */
export declare function connect(options: ConnectOptions): Client;
/** An id of so many random bytes, in base64url. */
export declare function randomId(bytes: number): string;
export declare class Client {
    #private;
    /** See `connect`. */
    constructor(options: ConnectOptions);
    get status(): Status;
    get isConnected(): boolean;
    get activity(): Activity;
    /** Whether no more can wait to be sent. */
    get isFull(): boolean;
    /** What the session is resumed with. A secret. Null: there is none yet. */
    get sessionToken(): string | null;
    /** What another client is to go on with. Of this one, nothing is known any more then. */
    get state(): State;
    /** The turns that haven't ended, in the order in which they were begun: those of a state that was given, too. */
    get turns(): readonly Turn[];
    /** Have *listener* told from now on. Return how to end that. */
    on<Name extends keyof ClientEvents>(name: Name, listener: Listener<Name>): () => void;
    /**
     * Say something, with or without a connection: it is sent once, in order, when what was said before is answered.
     *
     * @throws ClientError `queue_full`: as much waits as may. `closed`.
     */
    send(content: string | readonly ContentPart[], { note }?: SendOptions): Turn;
    /**
     * Have the message *item* answered again. Its *content* is needed should its session be gone: it is said anew then.
     *
     * @throws ClientError As `send` does.
     */
    retry(item: string, content: readonly ContentPart[], { drop, note }?: RetryOptions): Turn;
    /**
     * Allow or refuse a call of the server's that needs approval: the item *request*. Null: nobody asks for it any more.
     *
     * @throws ClientError As `send` does.
     */
    decide(request: string, approve: boolean, reason?: string): Turn | null;
    /** Stop the answer that runs, or is asked for. Without a connection: as soon as there is one. */
    stop(): void;
    /** Take back what was never sent: the turn's id. Return whether it was so. */
    withdraw(turn: string): boolean;
    /** Leave the session, and all that waits, and begin another. */
    begin(): void;
    /** Connect now: instead of waiting, or after a stop. */
    reconnect(): void;
    /** The network has changed, or the machine may have slept: connect, or make sure that the connection lives. */
    hurry(): void;
    /** Connect anew, with another key. */
    useKey(key: string): void;
    /** Leave for good. The session stays: take `state` to come back. */
    close(): void;
}
export {};
