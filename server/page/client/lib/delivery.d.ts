/**
 * Brings what was said to the server: each once, in order, the next when the last is answered. Pure.
 *
 * An entry is kept until the server is known to have it, and sent again under the same names after a
 * reconnect or a reload: the server takes each name once. What it refuses for the moment is sent again
 * after growing pauses; what it refuses for good is given back.
 */
import type { Log } from "./log.js";
import type { Entry, Outbox, OwnEntry } from "./outbox.js";
import type { ClientEvent, Response, ServerError } from "./wire.js";
/**
 * How an entry stands. queued: it waits for its turn. sending: the server may have it. waiting: it was refused
 * for the moment, and is sent again. taken: it is in the conversation. answered: an answer to it has begun, or
 * none is due; it waits no more. refused: the server will never take it, or answer it. withdrawn: taken back.
 */
export type Stage = "queued" | "sending" | "waiting" | "taken" | "answered" | "refused" | "withdrawn";
/** What a delivery has done. */
export interface DeliveryTasks {
    send(event: ClientEvent): void;
    /** An entry stands otherwise now. Refused: because of *error*. */
    staged(entry: Entry, stage: Stage, error?: ServerError): void;
    /** Something went wrong that is about no entry. */
    complain(error: ServerError): void;
    /** A name for a wish for an answer. */
    newRequest(): string;
}
export declare class Delivery {
    #private;
    constructor(tasks: DeliveryTasks, outbox: Outbox, log: Log, random: () => number);
    /** Whether an answer was asked for that hasn't begun. */
    get isAsking(): boolean;
    /** Whether what was refused is about to be sent again. */
    get isPaused(): boolean;
    /** When to call `wake`; `Infinity`: nothing waits. */
    get wakeAt(): number;
    put(entry: Entry): void;
    /** Take back an entry that was never sent. Return whether it was one. */
    withdraw(id: string): boolean;
    /** Take back what is sent next, or waits to be sent again. Should it be answered all the same, that is stopped. */
    giveUp(): void;
    /** Nothing is going to answer what was sent: its answer was stopped before it began. */
    forsake(): void;
    /** Forget everything. */
    clear(): void;
    /** There is another connection: what was sent on the last one may have been lost. */
    reconnect(): void;
    /** The log is told anew: what it doesn't tell, the server hasn't got. */
    rebuild(): void;
    /**
     * The session has ended: what it hasn't answered goes to the next, as if it hadn't been sent.
     *
     * But for what can't be answered anywhere else: that is refused.
     */
    begin(error: ServerError): void;
    /** The entry has been answered, as what stands in the conversation tells. */
    found(entry: OwnEntry): void;
    /** The first entry was sent, taken and answered, and what by is forgotten: nothing more will come of it. */
    forget(): void;
    tooLarge(): void;
    /** Time has passed. Return whether something can be sent again. */
    wake(now: number): boolean;
    /** Send what can be sent. Call while there is a connection, all before it is known, and nothing is answered. */
    advance(): void;
    /** An item is in the conversation, whoever sent it. */
    heard(id: string): void;
    /** A response has begun. */
    acknowledge(response: Response): void;
    /** Take in an error. Return whether it is about something that is on its way. */
    refused(error: ServerError, now: number): boolean;
}
/** How an entry stands that waits. */
export declare function stageOf(entry: Entry): Stage;
