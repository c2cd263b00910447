/** The page's elements: found, or made. */

/** @param {string} id @returns {HTMLElement} */
export function element(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/** @template {keyof HTMLElementTagNameMap} K @param {K} name @param {string} className @param {string} [text] */
export function make(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** @param {string} label @param {() => void} act */
export function button(label, act) {
  const made = make("button", "small", label);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}
