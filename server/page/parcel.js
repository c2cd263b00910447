/** An entry of the outbox on its way: the events that bring it to the server, and how a decision looks meanwhile. */

/** @typedef {import("./outbox.js").Entry} Entry */

/** @param {Entry} entry @returns {object[]} What is to be sent, in order. Their names end with the part that each is. */
export function eventsOf(entry) {
  const { accepted, approval, drop, request } = entry;
  const item = named({ type: "conversation.item.create", item: itemOf(entry) }, request, "item");
  // Whether an answer is due to a decision is known when the server has taken it.
  if (!accepted && approval) return [item];
  const drops = drop.map((id) => named({ type: "conversation.item.delete", item_id: id }, request, "drop", id));
  // The metadata comes back with the response: so it is known which one answers this.
  const response = named({ type: "response.create", response: { metadata: { request } } }, request, "response");
  return accepted ? [...drops, response] : [item, ...drops, response];
}

/**
 * @param {object} event
 * @param {string} request
 * @param {string} part
 * @param {string} [name] Of the event among all of its type.
 */
function named(event, request, part, name = request) {
  return { ...event, event_id: `${request}.${part}`, unbroken: { message_id: name } };
}

/** @param {Entry} entry */
function itemOf({ id, text, files = [], approval }) {
  if (approval) {
    const { request: approval_request_id, approve } = approval;
    return { id, type: "mcp_approval_response", approval_request_id, approve };
  }
  return { id, type: "message", role: "user", content: written(text, files) };
}

/** @param {string} text @param {import("./attachments.js").Attached[]} files @returns {object[]} */
function written(text, files) {
  const parts = files.map(({ id, isImage }) => ({ type: isImage ? "input_image" : "input_file", file_id: id }));
  return text === "" && parts.length > 0 ? parts : [{ type: "input_text", text }, ...parts];
}

/**
 * @param {Entry} entry A decision that is on its way.
 * @param {import("./calls.js").Call} call What it is about.
 * @returns {[import("./calls.js").Call, {delivery: string}]} How the call is shown until it is there.
 */
export function decisionShown({ approval, sent, late }, call) {
  const state = approval?.approve ? "allowed" : "refused";
  return [{ ...call, state }, { delivery: late ?? (sent ? "Sending" : "Waits to be sent") }];
}
