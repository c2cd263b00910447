/** An entry on its way: the events that bring it to the server. Pure. */
import type { Entry } from "./outbox.js";
import type { ClientEvent } from "./wire.js";
/** What is to be sent, in order. */
export declare function eventsOf(entry: Entry): ClientEvent[];
/** What the `event_id` of such an event says: its request; `item`, `drop` or `response`; and the item that it adds. */
export declare function partOf(eventId: string): {
    request: string;
    part: string;
    item: string;
};
