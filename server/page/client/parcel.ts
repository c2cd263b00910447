/** An entry on its way: the events that bring it to the server. Pure. */

import type { Entry } from "./outbox.js";
import { isTaken } from "./outbox.js";
import type { ClientEvent } from "./wire.js";

/** What is to be sent, in order. */
export function eventsOf(entry: Entry): ClientEvent[] {
  const { kind, items, drop, request, taken } = entry;
  const created = items
    .filter(({ id }) => !taken.includes(id))
    .map((item) => {
      const name = `${request}.${item.id}`;
      return named({ type: "conversation.item.create", item }, `${request}.item.${item.id}`, name);
    });
  // Whether an answer is due to a decision is known when the server has taken it.
  if (kind === "decision" && !isTaken(entry)) return created;
  const drops = drop.map((id) => named({ type: "conversation.item.delete", item_id: id }, `${request}.drop`, id));
  // The metadata comes back with the response: so it is known which one answers this.
  const asked = { metadata: { request } };
  const response = named({ type: "response.create", response: asked }, `${request}.response`, request);
  return [...created, ...drops, response];
}

/** What the `event_id` of such an event says: its request; `item`, `drop` or `response`; and the item that it adds. */
export function partOf(eventId: string): { request: string; part: string; item: string } {
  const [request = "", part = "", ...item] = eventId.split(".");
  return { request, part, item: item.join(".") };
}

/** Give *event* a name for errors, and another, among all of its type, by which a resend is recognised. */
function named(event: ClientEvent, eventId: string, name: string): ClientEvent {
  return { ...event, event_id: eventId, unbroken: { message_id: name } };
}
