/**
 * Shows an answer's Markdown as it comes in.
 *
 * The subset of CommonMark 0.31 that models write, with tables, as nodes: nothing is ever parsed as HTML.
 * What a line is, is known when it has ended. Blocks that can't change any more are left alone; only
 * the last one is read again with each frame, and of that only what has changed is put into the page.
 */

import { make } from "./elements.js";
import { inline } from "./inline.js";

/** Lists and quotes within each other; what is deeper is text. */
const DEEPEST = 8;
// None of these can be made to go back and forth over a long line.
const FENCE = /^ {0,3}(`{3,}(?!`)|~{3,}(?!~))([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:( {1,4})(?! )| +)(?=\S)/;
const COLUMNS = /^\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?$/;
/** The beginning of a line that may yet be something else than it looks: not shown before it is known. */
const HELD = /^ *(?:`{1,2}|~{1,2}|(?:`{3,}(?!`)|~{3,}(?!~))[^`]*|[-+*#|]{1,6}|\d{1,3}[.)]?|>) ?$/;

/** @typedef {{from: number, to: number, build: () => HTMLElement}} Block Lines *from* up to, not including, *to*. */

export class Markdown {
  /** @param {HTMLElement} body Where it is shown. */
  constructor(body) {
    this.#body = body;
  }

  #body;
  /** Characters in blocks that can't change any more, and the nodes that show these. */
  #settled = 0;
  #nodes = 0;

  /** Show nothing. */
  clear() {
    this.#body.replaceChildren();
    this.#settled = this.#nodes = 0;
  }

  /** @param {string} text What was shown before, and more. @param {boolean} isWhole Whether no more will come. */
  show(text, isWhole) {
    const lines = text.slice(this.#settled).split("\n");
    const whole = lines.slice(0, -1);
    if (!isWhole && HELD.test(lines[lines.length - 1])) lines.pop();
    patch(this.#body, assembled(lines), this.#body.childNodes[this.#nodes] ?? null);
    // The last block of what has ended may go on; those before can't.
    const settled = blocks(whole, 0).slice(0, -1);
    const last = settled.at(-1);
    if (last === undefined) return;
    this.#settled += whole.slice(0, last.to).join("\n").length;
    this.#nodes += 2 * settled.length;
  }
}

/**
 * @param {string[]} lines
 * @returns {Node[]} In pairs: what is between two blocks, as text that isn't seen, and a block. What is
 *   copied, or compared, is so just what was written, as far as it was plain text.
 */
function assembled(lines) {
  /** @type {Node[]} */
  const nodes = [];
  let at = 0;
  for (const { from, to, build } of blocks(lines, 0)) {
    const gap = lines.slice(at, from).join("\n");
    nodes.push(new Text((at > 0 ? "\n" : "") + gap + (from > at ? "\n" : "")), build());
    at = to;
  }
  const rest = lines.slice(at);
  if (rest.length > 0) nodes.push(new Text((at > 0 ? "\n" : "") + rest.join("\n")));
  return nodes;
}

/** @param {string[]} lines @param {number} depth @returns {Block[]} In order. Empty lines between them are of none. */
function blocks(lines, depth) {
  /** @type {Block[]} */
  const found = [];
  for (let from = 0; from < lines.length; ) {
    if (lines[from].trim() === "") {
      from += 1;
      continue;
    }
    const block = blockAt(lines, from, depth);
    found.push(block);
    from = block.to;
  }
  return found;
}

/** @param {string[]} lines @param {number} from @param {number} depth @returns {Block} */
function blockAt(lines, from, depth) {
  const line = lines[from];
  const fence = FENCE.exec(line);
  if (fence !== null) return fenced(lines, from, fence[1], fence[2].trim());
  const heading = HEADING.exec(line);
  if (heading !== null) {
    const level = /** @type {"h3"} */ (`h${Math.min(6, heading[1].length + 2)}`); // below the page's own
    const words = heading[2].replace(/[ \t]#{1,20}[ \t]{0,20}$/, "").trim();
    return { from, to: from + 1, build: () => filled(make(level, ""), inline(words)) };
  }
  if (RULE.test(line)) return { from, to: from + 1, build: () => document.createElement("hr") };
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, from, depth);
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, from, depth);
  if (line.includes("|") && lines[from + 1]?.includes("|") && COLUMNS.test(lines[from + 1].trim())) return table(lines, from);
  let to = from + 1;
  while (to < lines.length && lines[to].trim() !== "" && !interrupts(lines[to])) to += 1;
  return { from, to, build: () => filled(make("p", ""), inline(lines.slice(from, to).join("\n"))) };
}

/** @param {string} line @returns {boolean} Whether it ends a paragraph. */
function interrupts(line) {
  if (FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || RULE.test(line)) return true;
  // A number may begin a line of any text; a list begins with one.
  const marker = ITEM.exec(line)?.[2];
  return marker !== undefined && (marker.length === 1 || marker === "1." || marker === "1)");
}

/** @param {string[]} lines @param {number} from @param {string} fence @param {string} language @returns {Block} */
function fenced(lines, from, fence, language) {
  const isEnd = (/** @type {string} */ line) => {
    const end = line.trim();
    return end.length >= fence.length && end === fence[0].repeat(end.length) && /^ {0,3}\S/.test(line);
  };
  let to = from + 1;
  while (to < lines.length && !isEnd(lines[to])) to += 1;
  const code = lines.slice(from + 1, to).join("\n");
  return { from, to: Math.min(lines.length, to + 1), build: () => codeBlock(code, language) };
}

/** @param {string} code @param {string} language @returns {HTMLElement} */
function codeBlock(code, language) {
  const block = make("div", "code");
  const bar = make("div", "bar");
  const copy = make("button", "small copy", "Copy");
  copy.type = "button";
  copy.setAttribute("aria-label", "Copy code");
  bar.append(make("span", "language", language.slice(0, 40)), copy);
  block.append(bar, filled(make("pre", ""), [make("code", "", code)]));
  return block;
}

/** @param {string[]} lines @param {number} from @param {number} depth @returns {Block} */
function quote(lines, from, depth) {
  let to = from + 1;
  while (to < lines.length && QUOTE.test(lines[to])) to += 1;
  const inner = lines.slice(from, to).map((line) => line.replace(QUOTE, ""));
  return { from, to, build: () => filled(make("blockquote", ""), nested(inner, depth)) };
}

/** @param {string[]} lines @param {number} from @param {number} depth @returns {Block} */
function list(lines, from, depth) {
  /** @type {string[][]} */
  const items = [];
  let kind = "";
  let indent = 0;
  let inside = 0; // spaces by which a line of the item is indented
  let first = 1;
  let to = from;
  for (let at = from; at < lines.length; at += 1) {
    const line = lines[at];
    const item = ITEM.exec(line);
    const spaces = line.length - line.trimStart().length;
    const isEmpty = line.trim() === "";
    if (!isEmpty && items.length > 0 && spaces >= Math.min(inside, indent + 2)) {
      items[items.length - 1].push(line.slice(Math.min(spaces, inside)));
    } else if (item !== null && !RULE.test(line) && (items.length === 0 || kindOf(item[2]) === kind)) {
      if (items.length === 0) [kind, first] = [kindOf(item[2]), Number.parseInt(item[2], 10)];
      indent = spaces;
      inside = spaces + item[2].length + (item[3]?.length ?? 1);
      items.push([line.slice(inside)]);
    } else if (isEmpty || (at === to && !interrupts(line) && item === null)) {
      items[items.length - 1].push(line);
    } else {
      break;
    }
    if (!isEmpty) to = at + 1;
  }
  return { from, to, build: () => listed(items, Number.isNaN(first) ? null : first, depth) };
}

/** @param {string} marker @returns {string} Items with the same are of one list. */
function kindOf(marker) {
  return marker.slice(-1);
}

/** @param {string[][]} items @param {number | null} first Of a numbered list. @param {number} depth */
function listed(items, first, depth) {
  const made = make(first === null ? "ul" : "ol", "");
  if (first !== null && first !== 1) made.setAttribute("start", String(first));
  for (const lines of items) made.append(filled(make("li", ""), nested(lines, depth)));
  return made;
}

/** @param {string[]} lines @param {number} from @returns {Block} */
function table(lines, from) {
  let to = from + 2;
  while (to < lines.length && lines[to].includes("|") && !interrupts(lines[to])) to += 1;
  return {
    from,
    to,
    build() {
      const sides = cells(lines[from + 1]).map((rule) => (rule.endsWith(":") ? (rule[0] === ":" ? "middle" : "end") : ""));
      const row = (/** @type {string} */ line, /** @type {"td" | "th"} */ kind) =>
        filled(
          make("tr", ""),
          cells(line).slice(0, sides.length).map((cell, column) => filled(make(kind, sides[column]), inline(cell))),
        );
      const head = filled(make("thead", ""), [row(lines[from], "th")]);
      const rows = filled(make("tbody", ""), lines.slice(from + 2, to).map((line) => row(line, "td")));
      return filled(make("div", "table"), [filled(make("table", ""), [head, rows])]);
    },
  };
}

/** @param {string} line @returns {string[]} */
function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** @param {string[]} lines @param {number} depth @returns {Node[]} */
function nested(lines, depth) {
  return blocks(lines, depth + 1).map(({ build }) => build());
}

/** @template {HTMLElement} E @param {E} node @param {Node[]} nodes @returns {E} */
function filled(node, nodes) {
  node.append(...nodes);
  return node;
}

/**
 * Have *parent* show *nodes*, keeping what is the same: what one has selected, or the focus, stays.
 *
 * @param {Node} parent @param {Node[]} nodes @param {ChildNode | null} from The first child to be compared.
 */
function patch(parent, nodes, from) {
  let old = from;
  for (const node of nodes) {
    const next = old?.nextSibling ?? null;
    if (old === null) parent.appendChild(node);
    else if (!merge(old, node)) parent.replaceChild(node, old);
    old = next;
  }
  while (old !== null) {
    const next = old.nextSibling;
    old.remove();
    old = next;
  }
}

/** @param {Node} old @param {Node} node @returns {boolean} Whether *old* could be made to show what *node* does. */
function merge(old, node) {
  if (old instanceof Text && node instanceof Text) {
    if (node.data === old.data) return true;
    if (node.data.startsWith(old.data)) old.appendData(node.data.slice(old.data.length));
    else old.data = node.data;
    return true;
  }
  if (old instanceof Text || node instanceof Text) return false;
  if (!old.cloneNode(false).isEqualNode(node.cloneNode(false))) return false;
  if (!(old instanceof HTMLButtonElement)) patch(old, [...node.childNodes], old.firstChild);
  return true;
}
