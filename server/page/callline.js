/** Shows a call as a line, with what it was given and what came of it to unfold. As text, and no more than fits. */

import { button, make } from "./elements.js";

/** @typedef {import("./calls.js").Call} Call */

/** Characters of arguments or of a result that are shown. */
const MOST = 4_000;
/** Of what one is asked to approve of: more than the server lets a model write. */
const MOST_ASKED = 64_000;
/** Of the line itself. */
const MOST_NAME = 100;
const MOST_NOTE = 200;

/** @type {Record<Call["kind"], string>} */
const KINDS = { tool: "Tool", function: "Function", approval: "Approval" };

/** @type {Record<import("./calls.js").CallState, string>} */
const STATES = {
  preparing: "Preparing",
  running: "Running",
  done: "Done",
  failed: "Failed",
  unknown: "The result isn't known",
  asked: "Asks for your approval",
  allowed: "Allowed",
  refused: "Not allowed",
  elsewhere: "For another client to run",
  void: "Not run",
};

export class CallLine {
  /** @param {(approve: boolean) => void} decide */
  constructor(decide) {
    this.#decide = decide;
    this.#summary.append(this.#name, this.#from, this.#state);
    this.#details.append(this.#summary, this.#parts);
    this.node.append(this.#kind, this.#details, this.tools);
  }

  #decide;
  node = make("li", "message call");
  tools = make("div", "tools");
  #kind = make("span", "unseen");
  #details = make("details", "");
  #summary = make("summary", "");
  #name = make("span", "name");
  #from = make("span", "from");
  #state = make("span", "state");
  #parts = make("div", "parts");
  /** @type {Call["state"] | null} */
  #shown = null;
  /** What it says, to be read out. */
  words = "";

  /** @param {Call} call @param {string} [delivery] How the user's decision is on its way. */
  show({ kind, name, from, state, args, result, note }, delivery = "") {
    const words = STATES[state];
    this.words = `${clipped(name, MOST_NAME)}: ${words}.`;
    this.node.dataset.status = state;
    this.node.dataset.kind = kind;
    this.#kind.textContent = `${KINDS[kind]}: `;
    this.#name.textContent = clipped(name, MOST_NAME);
    this.#from.textContent = from && `of ${clipped(from, MOST_NAME)}`;
    this.#state.textContent = words;
    const parts = [];
    if (args) parts.push(part("Arguments", args, kind === "approval" ? MOST_ASKED : MOST));
    if (result !== null) parts.push(part("Result", result, MOST));
    if (note.length > MOST_NOTE) parts.push(part("Said", note, MOST));
    this.#parts.replaceChildren(...parts);
    // Nobody should approve of what they haven't been shown.
    if (this.#shown === null && state === "asked") this.#details.open = true;
    if (this.#shown !== state || state !== "asked") this.#showTools(state, name, note, delivery);
    this.#shown = state;
  }

  /** @param {Call["state"]} state @param {string} name @param {string} note @param {string} delivery */
  #showTools(state, name, note, delivery) {
    /** @type {Node[]} */
    const tools = [];
    if (note) tools.push(make("span", "outcome", clipped(note, MOST_NOTE)));
    if (delivery) tools.push(make("span", "mark late", delivery));
    if (state === "asked") {
      for (const [label, approve] of /** @type {[string, boolean][]} */ ([["Allow", true], ["Don't allow", false]])) {
        const made = button(label, () => this.#decide(approve));
        made.className = "";
        // There may be several: by ear they are told apart by what they are about.
        made.setAttribute("aria-label", `${label} ${clipped(name, MOST_NAME)}`);
        tools.push(made);
      }
    }
    const hadFocus = this.tools.contains(document.activeElement);
    this.tools.replaceChildren(...tools);
    // Another tab may have decided while this one's button had the focus.
    if (hadFocus) this.#summary.focus();
  }
}

/** @param {string} title @param {string} text @param {number} most */
function part(title, text, most) {
  const made = make("div", "part");
  made.append(make("span", "title", title), make("pre", "value", text.slice(0, most)));
  const rest = text.length - most;
  if (rest > 0) made.append(make("span", "title", `${rest} more characters aren't shown.`));
  return made;
}

/** @param {string} text @param {number} most @returns {string} */
function clipped(text, most) {
  return text.length > most ? `${text.slice(0, most)}…` : text;
}
