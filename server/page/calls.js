/**
 * What was called in a conversation: the server's tools, functions of other clients, and what a
 * person was asked to approve of.
 *
 * It reads the server's items, and knows nothing of how a call is shown.
 */

/**
 * preparing: the arguments are being written. unknown: it may have been run. asked: a person has to
 * decide. elsewhere: another client is to run it. void: nobody is to, any more.
 *
 * @typedef {"preparing" | "running" | "done" | "failed" | "unknown" | "asked" | "allowed" | "refused"
 *   | "elsewhere" | "void"} CallState
 */

/**
 * @typedef {object} Call
 * @property {"tool" | "function" | "approval"} kind
 * @property {string} name
 * @property {string} from Whose tool it is; empty: the server's own, or a client's function.
 * @property {CallState} state
 * @property {string} args As the model wrote them.
 * @property {string | null} result
 * @property {string} note Why there is no result; may be empty.
 */

/** @typedef {{id: string, call: Call}} Change What a call is now, by its item. */

/** The server calls the set of its own functions so. */
const OWN = "tools";
/** Items that this page shows a line for. */
const KINDS = new Set(["mcp_call", "mcp_approval_request", "function_call"]);

/** @param {any} item @returns {boolean} Whether it is a call, or asks for one. */
export function isCall(item) {
  return KINDS.has(item.type);
}

export class Calls {
  /** @type {Map<string, Call>} By item; as many as the conversation has. */
  #calls = new Map();
  /** @type {Map<string, string>} Items of functions, by the call's id. */
  #functions = new Map();

  /** @param {string} id @returns {Call | undefined} */
  get(id) {
    return this.#calls.get(id);
  }

  /**
   * Take in an item, or how it ended.
   *
   * @param {any} item
   * @param {boolean} isWhole Whether nothing more will be said of it.
   * @returns {Change | null} The call that this changes; null: none.
   */
  note(item, isWhole) {
    switch (item.type) {
      case "mcp_call":
        return this.#set(item.id, toolCall(item, isWhole));
      case "function_call":
        this.#functions.set(item.call_id, item.id);
        return this.#set(item.id, functionCall(item));
      case "mcp_approval_request": {
        const known = this.#calls.get(item.id);
        if (known !== undefined) return { id: item.id, call: known }; // it began whole, and may be decided by now
        return this.#set(item.id, asked(item));
      }
      case "mcp_approval_response":
        return this.change(item.approval_request_id, {
          state: item.approve ? "allowed" : "refused",
          note: item.reason ?? "",
        });
      case "function_call_output":
        return this.change(this.#functions.get(item.call_id) ?? "", { state: "done", result: item.output });
      default:
        return null;
    }
  }

  /** @param {string} id @param {Partial<Call>} change @returns {Change | null} null: there is no such call. */
  change(id, change) {
    const call = this.#calls.get(id);
    return call === undefined ? null : this.#set(id, { ...call, ...change });
  }

  /** @param {string} id */
  forget(id) {
    this.#calls.delete(id);
  }

  clear() {
    this.#calls.clear();
    this.#functions.clear();
  }

  /** @returns {Change[]} What becomes of calls that are open when the server has lost the conversation. */
  lost() {
    return [...this.#calls].flatMap(([id, call]) => {
      switch (call.state) {
        case "preparing":
          return { id, call: { ...call, state: "void", note: "Not run: the server lost the conversation." } };
        case "running":
          return { id, call: { ...call, state: "unknown", note: "The server lost the conversation meanwhile." } };
        case "asked":
          return { id, call: { ...call, state: "void", note: "The server lost the conversation." } };
        default:
          return [];
      }
    });
  }

  /** @param {string} id @param {Call} call @returns {Change} */
  #set(id, call) {
    this.#calls.set(id, call);
    return { id, call };
  }
}

/** @param {any} item @param {boolean} isWhole @returns {Call} */
function toolCall(item, isWhole) {
  const result = item.output ?? null;
  /** @type {CallState} */
  let state = isWhole ? "unknown" : "preparing";
  if (result !== null) state = "done";
  else if (item.error) state = "failed";
  return { ...named("tool", item), state, result, note: item.error?.message ?? "" };
}

/** @param {any} item @returns {Call} */
function functionCall(item) {
  /** @type {Record<string, CallState>} */
  const states = { in_progress: "preparing", incomplete: "void" };
  const state = states[item.status] ?? "elsewhere";
  const note = state === "void" ? "Not called: the answer was cut short." : "";
  return { ...named("function", item), state, result: null, note };
}

/** @param {any} item @returns {Call} */
function asked(item) {
  return { ...named("approval", item), state: "asked", result: null, note: "" };
}

/** @param {Call["kind"]} kind @param {any} item */
function named(kind, { name, server_label: label, arguments: args }) {
  return { kind, name, from: label === undefined || label === OWN ? "" : label, args };
}
