/**
 * What Markdown says within a line: code, emphasis, links. As nodes; text is only ever set as text.
 *
 * The subset of CommonMark 0.31 that models write. What isn't closed, or isn't known, HTML among it,
 * stays as it was written. The time that it takes is in proportion to the text, whatever the text is.
 */

import { make } from "./elements.js";

/** Open emphases within each other; more are text. */
const DEEPEST = 8;
/** Where something other than text may begin. */
const SPECIAL = /[\\`*_~[!<]|https?:\/\//g;
const ESCAPED = /\\([!-/:-@[-`{-~])/y;
const TICKS = /`+/y;
const DELIMITER = /\*\*|\*|__|_|~~/y;
/** Bounded, and of classes that exclude each other's ends: it can't be made to go back and forth. */
const LINK = /!?\[((?:[^[\]\\]|\\.){1,1000})\]\(<?(https?:\/\/(?:[^\s<>()]|\([^\s<>()]{0,500}\)){1,2000})>?(?: +"[^"]{0,500}")?\)/iy;
const ADDRESS = /<?(https?:\/\/[^\s<>"`]{1,2000})/iy;
/** What follows an address more often than it belongs to it. */
const AFTER_ADDRESS = /[.,:;!?'")\]*_~]{1,20}$/;
const BREAK = /<br ?\/?>/iy;

/** @type {Record<string, "strong" | "em" | "del">} */
const EMPHASES = { "**": "strong", __: "strong", "*": "em", _: "em", "~~": "del" };

/** @param {string} text @returns {Node[]} */
export function inline(text) {
  return new Reader(text, true).read();
}

/** @typedef {{delimiter: string, nodes: Node[]}} Open An emphasis that may be closed yet. */

class Reader {
  /** @param {string} text @param {boolean} takesLinks Within a link there is no other. */
  constructor(text, takesLinks) {
    this.#text = text;
    this.#takesLinks = takesLinks;
  }

  #text;
  #takesLinks;
  #at = 0;
  /** @type {Open[]} The first is the line itself. */
  #open = [{ delimiter: "", nodes: [] }];
  /** @type {Set<number>} Lengths of runs of backticks that nothing closes from here on. */
  #unclosed = new Set();

  read() {
    while (this.#at < this.#text.length) {
      SPECIAL.lastIndex = this.#at;
      const next = SPECIAL.exec(this.#text)?.index ?? this.#text.length;
      this.#say(this.#text.slice(this.#at, next));
      this.#at = next;
      if (next < this.#text.length && !this.#special()) this.#say(this.#text[this.#at++]);
    }
    while (this.#open.length > 1) this.#giveUp();
    return this.#open[0].nodes;
  }

  /** @returns {boolean} Whether there was anything but text, and has been taken. */
  #special() {
    switch (this.#text[this.#at]) {
      case "\\":
        return this.#take(ESCAPED, ([, escaped]) => this.#say(escaped));
      case "`":
        return this.#code();
      case "*":
      case "_":
      case "~":
        return this.#delimiter();
      case "[":
      case "!":
        return this.#takesLinks && this.#take(LINK, ([, text, url]) => this.#link(new Reader(text, false).read(), url));
      case "<":
        return this.#take(BREAK, () => this.#add(document.createElement("br"))) || this.#address();
      default:
        return this.#address();
    }
  }

  /** @param {RegExp} what @param {(match: RegExpExecArray) => void} act @returns {boolean} */
  #take(what, act) {
    what.lastIndex = this.#at;
    const match = what.exec(this.#text);
    if (match === null) return false;
    this.#at = what.lastIndex;
    act(match);
    return true;
  }

  #code() {
    TICKS.lastIndex = this.#at;
    const run = TICKS.exec(this.#text)?.[0] ?? "";
    const begin = this.#at + run.length;
    const end = this.#unclosed.has(run.length) ? -1 : this.#ticksAfter(begin, run.length);
    if (end < 0) {
      this.#unclosed.add(run.length);
      this.#say(run);
      this.#at = begin;
      return true;
    }
    const code = this.#text.slice(begin, end).replaceAll("\n", " ");
    // One space at each side, so that code may begin with a backtick.
    this.#add(make("code", "", /^ .*[^ ].* $/s.test(code) ? code.slice(1, -1) : code));
    this.#at = end + run.length;
    return true;
  }

  /** @param {number} from @param {number} length @returns {number} Where just so many backticks are; -1: nowhere. */
  #ticksAfter(from, length) {
    const ticks = /`+/g;
    ticks.lastIndex = from;
    for (let run = ticks.exec(this.#text); run !== null; run = ticks.exec(this.#text)) {
      if (run[0].length === length) return run.index;
    }
    return -1;
  }

  #delimiter() {
    DELIMITER.lastIndex = this.#at;
    let delimiter = DELIMITER.exec(this.#text)?.[0];
    if (delimiter === undefined) return false;
    const before = this.#text[this.#at - 1] ?? " ";
    // In `***both***` what was opened last is closed first.
    if (delimiter.length === 2 && this.#open.at(-1)?.delimiter === delimiter[0] && before !== delimiter[0]) {
      delimiter = delimiter[0];
    }
    const after = this.#text[this.#at + delimiter.length] ?? " ";
    const isUnderscore = delimiter[0] === "_";
    const opens = /\S/.test(after) && !(isUnderscore && /[\p{L}\p{N}]/u.test(before));
    const closes = /\S/.test(before) && !(isUnderscore && /[\p{L}\p{N}]/u.test(after));
    this.#at += delimiter.length;
    if (closes && this.#open.some((each) => each.delimiter === delimiter)) this.#close(delimiter);
    else if (opens && this.#open.length <= DEEPEST) this.#open.push({ delimiter, nodes: [] });
    else this.#say(delimiter);
    return true;
  }

  /** @param {string} delimiter */
  #close(delimiter) {
    while (this.#open.at(-1)?.delimiter !== delimiter) this.#giveUp();
    const nodes = this.#open.pop()?.nodes ?? [];
    if (nodes.length === 0) return this.#say(delimiter + delimiter);
    const emphasis = document.createElement(EMPHASES[delimiter]);
    emphasis.append(...nodes);
    this.#add(emphasis);
  }

  /** What was opened last isn't closed: it was text. */
  #giveUp() {
    const open = this.#open.pop();
    if (open === undefined) return;
    this.#say(open.delimiter);
    for (const node of open.nodes) {
      if (node instanceof Text) this.#say(node.data);
      else this.#add(node);
    }
  }

  /** @returns {boolean} */
  #address() {
    const at = this.#at;
    // Part of a word, it is none.
    if (!this.#takesLinks || /[\p{L}\p{N}]/u.test(this.#text[at - 1] ?? " ")) return false;
    return this.#take(ADDRESS, ([whole, url]) => {
      const isMarked = whole !== url && this.#text[this.#at] === ">";
      const rest = isMarked ? "" : (AFTER_ADDRESS.exec(url)?.[0] ?? "");
      const address = url.slice(0, url.length - rest.length);
      if (whole !== url && !isMarked) this.#say("<");
      this.#link([new Text(address)], address);
      this.#at += isMarked ? 1 : -rest.length;
    });
  }

  /** @param {Node[]} nodes @param {string} address */
  #link(nodes, address) {
    const url = URL.canParse(address) ? new URL(address) : null;
    // The expressions let nothing else through; should they ever, it is text.
    if (url === null || !["http:", "https:"].includes(url.protocol)) {
      for (const node of nodes) this.#add(node);
      return;
    }
    const link = make("a", "");
    link.href = url.href;
    link.title = url.href; // the words may speak of another place
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    link.append(...nodes);
    this.#add(link);
  }

  /** @param {string} text */
  #say(text) {
    if (text === "") return;
    const nodes = this.#open[this.#open.length - 1].nodes;
    const last = nodes.at(-1);
    if (last instanceof Text) last.appendData(text);
    else nodes.push(new Text(text));
  }

  /** @param {Node} node */
  #add(node) {
    this.#open[this.#open.length - 1].nodes.push(node);
  }
}
