/** What the server refuses: for the moment, or for good. Pure. */

import type { ServerError } from "./wire.js";

/**
 * Refusals that are no verdict on what was sent: the same will be taken a little later. In words for
 * whoever sees a message wait: the server's own ask to try again, which this client does by itself.
 */
const PASSING: ReadonlyMap<string, string> = new Map([
  ["server_overloaded", "The server has too much to do"],
  ["server_full", "The server is full"],
  ["server_draining", "The server is restarting"],
  ["input_queue_full", "Messages came too fast"],
  ["response_queue_full", "Too many answers are waiting"],
  ["too_many_responses", "Too many answers run at once"],
  ["store_unavailable", "Nothing can be saved at the moment"],
  ["guard_unavailable", "It couldn't be checked at the moment"],
  ["files_unavailable", "The server can't read files at the moment"],
]);

/** Refusals that the server remembers, and repeats to whoever sends again under the same name. */
const REMEMBERED: ReadonlySet<string> = new Set(["response_queue_full"]);

/** Refusals of an item that say that it is there already. */
const THERE: ReadonlySet<string> = new Set(["item_id_taken", "function_call_answered"]);

/** What to say while it is waited for; null: it doesn't pass. */
export function passingWords({ code }: ServerError): string | null {
  const words = PASSING.get(code);
  return words === undefined ? null : `${words}. Sent again by itself`;
}

/** Whether the same has to be asked for under another name. */
export function isRemembered({ code }: ServerError): boolean {
  return REMEMBERED.has(code);
}

/** Whether the item that is refused is in the conversation: nobody else could know its id. */
export function isThere({ code }: ServerError): boolean {
  return THERE.has(code);
}
