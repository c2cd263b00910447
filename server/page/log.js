/**
 * Shows a conversation: messages in their order, answers as they grow.
 *
 * Text is only ever set as text, never as markup. What a token costs doesn't depend on how
 * much is shown: tokens are collected, and the end of their answer is brought up to date once per frame.
 */

import { CallLine } from "./callline.js";
import { button, element, make } from "./elements.js";
import { Markdown } from "./markdown.js";
import { Press } from "./press.js";

/**
 * @typedef {object} Shown A message, a part of an answer, or a call.
 * @property {HTMLLIElement} node
 * @property {HTMLElement} body
 * @property {HTMLElement} tools Below the text: what became of it, and what can be done.
 * @property {string} text All of it, also what the next frame will show.
 * @property {Markdown | null} markdown What shows an answer's text.
 * @property {string | null} item What it shows; null: an answer that hasn't said anything yet.
 * @property {CallLine | null} line Of a call.
 */

/**
 * @typedef {object} Answer A response that runs.
 * @property {Shown} tail Where its next words will be: always behind the rest.
 * @property {Shown[]} parts Before that.
 */

/**
 * @typedef {object} Actions
 * @property {() => void} retry
 * @property {(id: string) => void} withdraw
 * @property {(id: string) => void} takeBack What was refused, to change it.
 * @property {(text: string) => Promise<boolean>} copy
 * @property {(request: string, approve: boolean) => void} decide On a call that waits for approval.
 * @property {(file: import("./attachments.js").Attached, place: HTMLElement) => void} picture Show an image there.
 */

/** Pixels from the end that still count as being there. */
const NEAR = 48;
const ANNOUNCE_AFTER = 300;
/** What calls come to that is read out at once; the rest with the answer. */
const SAID = new Set(["running", "allowed", "refused"]);

export class Log {
  /** @param {Actions} actions */
  constructor(actions) {
    this.#actions = actions;
    this.#section = this.#newSection();
    this.#scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#latest.addEventListener("click", () => this.toEnd());
    this.#sections.addEventListener("click", ({ target }) => {
      if (target instanceof HTMLButtonElement && target.matches(".copy")) void this.#copyCode(target);
    });
    // Whatever changes sizes: text, the composer, the keyboard of a phone, messages scrolled into view.
    const observer = new ResizeObserver(() => this.#follow());
    observer.observe(this.#scroller);
    observer.observe(element("log"));
  }

  #actions;
  #scroller = element("scroller");
  /** What grows waits for its end. */
  #press = new Press(this.#scroller, () => this.#nextFrame());
  #sections = element("sections");
  #pending = element("pending");
  #latest = element("latest");
  #announcer = element("announcer");
  /** @type {HTMLOListElement} The current session's. */
  #section;
  /** @type {Map<string, Shown>} By item and by response. Of the current session. */
  #shown = new Map();
  /** @type {Map<string, Answer>} By response. */
  #answers = new Map();
  /** @type {Set<Shown>} What the next frame has to add to. */
  #growing = new Set();
  #isFrameDue = false;
  #isAtEnd = true;
  #lastTop = 0;
  /** @type {HTMLButtonElement | null} Only the last answer can be had again. */
  #retry = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #announcing;

  clear() {
    for (const [id, { node }] of this.#shown) if (this.#section.contains(node)) this.#shown.delete(id);
    this.#growing.clear();
    this.#answers.clear();
    this.#section.replaceChildren();
    this.#settleWelcome();
  }

  /** Clear everything, also what is of sessions that have ended. */
  clearAll() {
    this.#sections.replaceChildren();
    this.#section = this.#newSection();
    this.clear();
  }

  divide() {
    for (const shown of this.#growing) this.#grow(shown, false);
    this.#answers.clear();
    const line = make("p", "ended");
    line.textContent = "This conversation has ended on the server; it may have been restarted. A new one begins here.";
    this.#sections.append(line);
    this.#section = this.#newSection();
    for (const [id, { node }] of this.#shown) if (!this.#pending.contains(node)) this.#shown.delete(id);
    this.#settleWelcome();
  }

  /**
   * @param {string} id
   * @param {string} text
   * @param {import("./conversation.js").Stage} delivery
   * @param {string} [previous]
   * @param {import("./attachments.js").Attached[]} [files] Left out: they are shown already.
   * @param {string} [why] It waits.
   */
  message(id, text, delivery, previous, files, why = "") {
    const isNew = !this.#shown.has(id);
    const message = this.#shown.get(id) ?? this.#add(id, "user", "You");
    message.node.dataset.status = delivery;
    if (message.text !== text) this.#write(message, text);
    if (files !== undefined) this.#attach(message, files);
    message.tools.replaceChildren(...this.#marks(id, delivery, why));
    if (delivery === "sent") this.#put(message, previous);
    else if (delivery === "waiting" && message.node.parentElement !== null) this.#announce(why);
    else if (message.node.parentElement !== this.#pending) this.#pending.append(message.node);
    if (isNew) this.#noRetry();
    if (isNew && delivery !== "sent") this.toEnd();
    this.#settleWelcome();
  }

  /** @param {Shown} message @param {import("./attachments.js").Attached[]} files */
  #attach({ node, tools }, files) {
    const ids = files.map(({ id }) => id).join(" ");
    if ((node.dataset.files ?? "") === ids) return;
    node.dataset.files = ids;
    node.querySelector(".files")?.remove();
    const list = make("ul", "files");
    list.setAttribute("aria-label", "Attached");
    for (const file of files) {
      const place = make("li", "file", file.name);
      if (file.isImage) this.#actions.picture(file, place);
      list.append(place);
    }
    tools.before(list);
  }

  /** @param {string} id */
  begin(id) {
    const tail = this.#shown.get(id) ?? this.#add(id, "answer", "Answer");
    this.#answers.set(id, { tail, parts: [] });
    this.#run(tail);
    this.#put(tail);
    this.#noRetry();
    this.#announce("Answering.");
    this.#settleWelcome();
  }

  /** @param {string} id @param {string} item @param {string} [previous] */
  place(id, item, previous) {
    const answer = this.#answers.get(id);
    if (answer !== undefined && answer.tail.item !== null && answer.tail.item !== item) this.#goOn(id, answer);
    const shown = answer?.tail ?? this.#shown.get(item) ?? this.#add(id, "answer", "Answer");
    shown.item = item;
    this.#shown.set(item, shown);
    delete shown.node.dataset.loose;
    this.#put(shown, previous);
    this.#settleWelcome();
  }

  /**
   * @param {string} id
   * @param {import("./calls.js").Call} call
   * @param {{response?: string, previous?: string, delivery?: string}} [options]
   */
  call(id, call, { response, previous, delivery } = {}) {
    const isNew = !this.#shown.has(id);
    const shown = this.#shown.get(id) ?? this.#addCall(id);
    const { line, node } = shown;
    if (line === null) return;
    const before = line.words;
    line.show(call, delivery);
    const answer = response === undefined ? undefined : this.#answers.get(response);
    if (answer !== undefined && isNew) {
      if (answer.tail.item !== null) this.#goOn(response ?? "", answer);
      answer.parts.push(shown);
      answer.tail.node.before(node);
    }
    this.#put(shown, previous);
    if (previous !== undefined) this.#follows(shown);
    if (SAID.has(call.state) && line.words !== before) this.#announce(line.words);
    this.#settleWelcome();
  }

  /** @param {string} id @param {string} [previous] An item that isn't shown, but that others may stand behind. */
  mark(id, previous) {
    if (this.#shown.has(id)) return;
    const mark = this.#new(make("li", ""), make("div", ""), make("div", ""));
    mark.node.hidden = true;
    this.#shown.set(id, mark);
    this.#put(mark, previous);
  }

  /** @param {string} item @param {string} text */
  append(item, text) {
    const answer = this.#shown.get(item);
    if (answer === undefined) return;
    answer.text += text;
    this.#growing.add(answer);
    this.#nextFrame();
  }

  /** @param {string} item @param {string} text */
  settle(item, text) {
    const answer = this.#shown.get(item);
    if (answer !== undefined && answer.text !== text) this.#write(answer, text);
  }

  /** @param {string} id @param {import("./outcome.js").Outcome} outcome */
  finish(id, { status, text, canRetry }) {
    const answer = this.#shown.get(id);
    if (answer === undefined) return;
    const parts = this.#answers.get(id)?.parts ?? [];
    this.#answers.delete(id);
    if (answer.item === null && text === "" && parts.length > 0) this.remove(id); // it ended with a call
    else this.#end(answer, status, text);
    if (canRetry) {
      this.#noRetry();
      this.#retry = button("Try again", () => this.#actions.retry());
      answer.tools.append(this.#retry);
    }
    const said = [...parts, answer].map(({ line, text }) => line?.words ?? text);
    this.#announce([...said, text].join(" "));
    this.#nextFrame();
  }

  /** @param {string} id */
  remove(id) {
    this.#shown.get(id)?.node.remove();
    this.#shown.delete(id);
    this.#settleWelcome();
  }

  /** Show the end, and stay there. */
  toEnd() {
    this.#isAtEnd = true;
    this.#nextFrame();
  }

  /** @param {Shown} tail Something may be said there. */
  #run({ node }) {
    if (node.parentElement === null) node.dataset.loose = "";
    node.dataset.status = "running";
    node.setAttribute("aria-busy", "true");
  }

  /** @param {Shown} answer @param {import("./outcome.js").Status} status @param {string} text */
  #end(answer, status, text) {
    this.#grow(answer, true);
    this.#growing.delete(answer);
    answer.node.dataset.status = status;
    answer.node.removeAttribute("aria-busy");
    /** @type {Node[]} */
    const tools = [];
    if (text) tools.push(make("span", "outcome", text));
    if (answer.text) tools.push(this.#copyButton(answer));
    answer.tools.replaceChildren(...tools);
  }

  /** @param {string} id @param {Answer} answer What it said last is whole: more comes behind it. */
  #goOn(id, answer) {
    const whole = answer.tail;
    this.#end(whole, "completed", "");
    answer.parts.push(whole);
    answer.tail = this.#add(id, "answer", "Answer");
    this.#run(answer.tail);
    whole.node.after(answer.tail.node);
  }

  /** @param {Shown} part Of an answer: what will be said next stays behind it, wherever that has been put. */
  #follows(part) {
    for (const { tail, parts } of this.#answers.values()) {
      const isApart = tail.item === null && part.node.nextElementSibling !== tail.node;
      if (parts.at(-1) === part && isApart) part.node.after(tail.node);
    }
  }

  /** @param {string} id @returns {Shown} */
  #addCall(id) {
    const line = new CallLine((approve) => this.#actions.decide(id, approve));
    const shown = { ...this.#new(line.node, make("div", ""), line.tools), line };
    this.#shown.set(id, shown);
    return shown;
  }

  /** @param {string} id @param {"user" | "answer"} kind @param {string} who @returns {Shown} */
  #add(id, kind, who) {
    const node = make("li", `message ${kind}`);
    const body = make("div", "text");
    const tools = make("div", "tools");
    node.append(make("span", "unseen", `${who}: `), body, tools);
    const shown = this.#new(node, body, tools);
    if (kind === "answer") shown.markdown = new Markdown(body);
    this.#shown.set(id, shown);
    return shown;
  }

  /** @param {HTMLLIElement} node @param {HTMLElement} body @param {HTMLElement} tools @returns {Shown} */
  #new(node, body, tools) {
    return { node, body, tools, text: "", markdown: null, item: null, line: null };
  }

  /**
   * Put it where it belongs: behind *previous*, or else where it is, or at the end.
   *
   * What stands behind *previous* without being an item, such as an answer that failed before its
   * first word, stays there.
   *
   * @param {Shown} shown
   * @param {string} [previous]
   */
  #put({ node }, previous) {
    const before = previous === undefined ? undefined : this.#shown.get(previous)?.node;
    if (before !== undefined && before !== node && before.parentElement === this.#section) {
      /** @type {Element} */
      let last = before;
      for (let next = last.nextElementSibling; next instanceof HTMLElement && next !== node; ) {
        if (next.dataset.loose === undefined) break;
        last = next;
        next = last.nextElementSibling;
      }
      if (last.nextElementSibling !== node) last.after(node);
    } else if (node.parentElement !== this.#section) {
      this.#section.append(node);
    }
  }

  /** @param {string} id @param {import("./conversation.js").Stage} delivery @param {string} why @returns {Node[]} */
  #marks(id, delivery, why) {
    switch (delivery) {
      case "queued":
        return [make("span", "mark", "Waits to be sent"), button("Remove", () => this.#actions.withdraw(id))];
      case "sending":
        return [make("span", "mark late", "Sending")];
      case "waiting":
        return [make("span", "mark", why)];
      case "refused":
        return [make("span", "outcome", "Not sent"), button("Edit", () => this.#actions.takeBack(id))];
      default:
        return [];
    }
  }

  /** @param {Shown} answer @returns {HTMLButtonElement} */
  #copyButton(answer) {
    const copy = button("Copy", () => this.#copy(answer.text, copy));
    return copy;
  }

  /** @param {HTMLButtonElement} pressed */
  #copyCode(pressed) {
    return this.#copy(pressed.closest(".code")?.querySelector("code")?.textContent ?? "", pressed);
  }

  /** @param {string} text @param {HTMLButtonElement} pressed */
  async #copy(text, pressed) {
    const isCopied = await this.#actions.copy(text);
    pressed.textContent = isCopied ? "Copied" : "Can't copy here";
    this.#announce(pressed.textContent);
    setTimeout(() => (pressed.textContent = "Copy"), 2_000);
  }

  #noRetry() {
    this.#retry?.remove();
    this.#retry = null;
  }

  /** @param {Shown} shown @param {string} text All of it: what is there may be anything. */
  #write(shown, text) {
    shown.text = text;
    if (shown.markdown === null) shown.body.textContent = text;
    shown.markdown?.clear();
    this.#grow(shown, false);
  }

  /** Bring what is shown up to date, once per frame: asking for sizes more often would lay out the page each time. */
  #nextFrame() {
    if (this.#isFrameDue) return;
    this.#isFrameDue = true;
    requestAnimationFrame(() => {
      this.#isFrameDue = false;
      if (this.#press.isOn) return;
      for (const shown of this.#growing) this.#grow(shown, false);
      this.#growing.clear();
      this.#follow();
    });
  }

  /** @param {Shown} shown @param {boolean} isWhole Whether no more will come. */
  #grow({ markdown, text }, isWhole) {
    markdown?.show(text, isWhole);
  }

  #scrolled() {
    const { scrollTop: top, scrollHeight, clientHeight } = this.#scroller;
    if (scrollHeight - top - clientHeight < NEAR) this.#isAtEnd = true;
    else if (top < this.#lastTop) this.#isAtEnd = false; // only a person scrolls up
    this.#lastTop = top;
    this.#latest.hidden = this.#isAtEnd;
  }

  #follow() {
    if (this.#press.isOn) return;
    if (this.#isAtEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#latest.hidden = this.#isAtEnd;
  }

  /** @param {string} text To be read out, unless more follows soon: after a reload, only the last answer is. */
  #announce(text) {
    clearTimeout(this.#announcing);
    this.#announcing = setTimeout(() => (this.#announcer.textContent = text), ANNOUNCE_AFTER);
  }

  #settleWelcome() {
    const isEmpty = this.#sections.querySelector("li:not([hidden]), .ended") === null && this.#pending.firstChild === null;
    element("welcome").hidden = !isEmpty;
  }

  #newSection() {
    const section = document.createElement("ol");
    section.className = "section";
    section.setAttribute("aria-label", "Messages");
    this.#sections.append(section);
    return section;
  }
}
