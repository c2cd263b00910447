/**
 * One client's conversation: what to send, what arrived, what isn't confirmed, when to try again. Pure.
 *
 * It is told what happens, and when, by its methods; what is to be done about it waits in `effects`, in order.
 * It has no socket and reads no clock, so whatever a network may do to it can be tried out.
 */
import type { Activity, CoreOptions, Effect, Output, State } from "./effects.js";
import type { ContentPart, ServerError, ServerEvent } from "./wire.js";
export declare class Core {
    #private;
    constructor(options: CoreOptions);
    /** Take what is to be done, in order. */
    effects(): Effect[];
    /** When to call `wake`, in milliseconds; `Infinity`: not before something happens. */
    get wakeAt(): number;
    get isConnected(): boolean;
    get isFull(): boolean;
    get token(): string | null;
    get activity(): Activity;
    /** The turns that haven't ended. */
    get turns(): readonly string[];
    get state(): State;
    /** Tell of what is there from before, and connect. */
    start(now: number): void;
    /** Connect now, whatever the state. */
    reconnect(now: number): void;
    /** Connect at once if that is being waited for; otherwise make sure that the connection lives. */
    hurry(now: number): void;
    /** Connect with another key. */
    useKey(now: number): void;
    /** Leave the session to itself, with all that waits, and begin another. */
    begin(now: number): void;
    close(): void;
    /** An event has come on the connection. */
    receive(event: ServerEvent, now: number): void;
    /** The connection is gone, or could not be had: then *error* may say why. */
    closed(code: number, now: number, error?: ServerError): void;
    /** Time has passed. */
    wake(now: number): void;
    /** Say something. Return the turn that it begins. Ask `isFull` before. */
    send(content: readonly ContentPart[], note: unknown, now: number): string;
    /** Have the message *about* answered again, when the items *drop* are gone. In another session it is said again. */
    retry(about: string, content: readonly ContentPart[], drop: readonly string[], note: unknown, now: number): string;
    /** Answer a request for approval. Return the turn; null: nobody asks for it, or it has been decided. */
    decide(request: string, approve: boolean, reason: string | undefined, now: number): string | null;
    /** The turn's functions have returned. */
    returned(turn: string, outputs: readonly Output[], now: number): void;
    /** Take back a turn that was never sent. Return whether it was one. */
    withdraw(turn: string, now: number): boolean;
    /** Stop the answer, also one that hasn't begun. Without a connection: as soon as there is one. */
    stop(now: number): void;
    /** Stop this turn, wherever it is. Others go on. */
    stopTurn(turn: string, now: number): void;
}
