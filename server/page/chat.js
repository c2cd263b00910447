/** The page: the composer, the connection's line and the dialog around a conversation. */

import { Attachments, thumbnail } from "./attachments.js";
import { randomId } from "./client/lib/index.js";
import { Conversation } from "./conversation.js";
import { element } from "./elements.js";
import { Log } from "./log.js";
import { keyForStranger } from "./stranger.js";

const KEY = "unbroken.key";
/** Why it is said to stop when another key would do. */
const NO_KEY = new Set(["invalid_api_key", "credential_expired", "credential_revoked"]);
const NOT_THIS_KIND = "api_key_in_browser"; // a key for backends, where only short-lived ones are taken
const MAX_ROWS_HEIGHT = 200;

const message = /** @type {HTMLTextAreaElement} */ (element("message"));
const send = /** @type {HTMLButtonElement} */ (element("send"));
const connect = /** @type {HTMLButtonElement} */ (element("connect"));
const dialog = /** @type {HTMLDialogElement} */ (element("key"));
const leaving = /** @type {HTMLDialogElement} */ (element("leave"));
const keyInput = /** @type {HTMLInputElement} */ (element("key-input"));
const notice = element("notice");
const coarse = matchMedia("(pointer: coarse)");

const tab = storage(() => sessionStorage);
const browser = storage(() => localStorage);

let key = tab.get(KEY) ?? ownKey();

const attachments = new Attachments({ key: () => key, token: () => conversation.client.sessionToken, notice: showNotice });

const log = new Log({
  retry() {
    message.focus(); // the button is about to go
    conversation.retry();
  },
  withdraw(id) {
    message.focus();
    conversation.withdraw(id);
  },
  takeBack: (id) => conversation.takeBack(id),
  copy,
  decide(request, approve) {
    message.focus(); // the buttons are about to go
    conversation.decide(request, approve);
  },
  async picture(file, place) {
    const url = await attachments.picture(file.id);
    if (url !== null) place.replaceChildren(thumbnail(url, file.name));
  },
});

const conversation = new Conversation({
  url: doorUrl(),
  key,
  storage: tab,
  view: {
    clear: () => log.clear(),
    divide: () => log.divide(),
    message: (...change) => log.message(...change),
    giveBack,
    begin: (id) => log.begin(id),
    place: (id, item, previous) => log.place(id, item, previous),
    call: (id, call, options) => log.call(id, call, options),
    mark: (id, previous) => log.mark(id, previous),
    append: (item, text) => log.append(item, text),
    settle: (item, text) => log.settle(item, text),
    finish: (id, outcome) => log.finish(id, outcome),
    remove: (id) => log.remove(id),
    notice: showNotice,
    busy: showBusy,
    model: showModel,
    connection: showConnection,
  },
});

// The composer.

/** @type {"no" | "yes" | "stopping"} */
let busy = "no";

/** @param {"no" | "yes" | "stopping"} now */
function showBusy(now) {
  busy = now;
  showSend();
}

function showSend() {
  const does = canSend() ? "no" : busy;
  send.textContent = { no: "Send", yes: "Stop", stopping: "Stopping" }[does];
  send.dataset.busy = does;
  // Not disabled: it would lose the focus.
  send.setAttribute("aria-disabled", String(does === "stopping"));
}

/** @returns {boolean} Whether the button sends. Where Enter doesn't, it has to, also during an answer. */
function canSend() {
  return busy === "no" || (coarse.matches && message.value.trim() !== "");
}

function say() {
  const text = message.value;
  if (text.trim() === "" && attachments.size === 0) return;
  if (attachments.isUploading) return showNotice("A file is still being uploaded. Send again in a moment.");
  const files = attachments.take();
  const refusal = conversation.say(text.trim() === "" ? "" : text, files);
  showNotice(refusal ?? "");
  if (refusal !== null) return;
  message.value = "";
  fit();
}

/** @param {import("./message.js").Message} message @returns {boolean} */
function giveBack({ text, files }) {
  // What has been written or attached meanwhile isn't to be mixed with it.
  if (message.value !== "" || attachments.size > 0) return false;
  message.value = text;
  attachments.restore(files);
  fit();
  message.focus();
  return true;
}

/** The text has changed. */
function fit() {
  showSend();
  message.style.height = "auto";
  message.style.height = `${Math.min(message.scrollHeight + 2, MAX_ROWS_HEIGHT)}px`;
}

message.addEventListener("input", fit);
message.addEventListener("keydown", (event) => {
  // While an input method composes, Enter picks one of its suggestions. On a phone, it is the only way to a new line.
  if (event.key !== "Enter" || coarse.matches || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  say();
});
element("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (canSend()) say();
  else if (busy === "yes") conversation.stop();
  message.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !dialog.open && !leaving.open) conversation.stop();
});
element("restart").addEventListener("click", () => {
  if (conversation.isUnsettled) leaving.showModal();
  else restart();
});
element("leave-cancel").addEventListener("click", () => leaving.close());
leaving.addEventListener("submit", (event) => {
  event.preventDefault();
  leaving.close();
  restart();
});

function restart() {
  showNotice("");
  attachments.clear();
  conversation.restart();
  log.clearAll();
  message.focus();
}

// Files: chosen, pasted, or dropped anywhere.

const chooser = /** @type {HTMLInputElement} */ (element("file"));
element("attach").addEventListener("click", () => chooser.click());
chooser.addEventListener("change", () => {
  attachments.add(chooser.files ?? []);
  chooser.value = ""; // so that the same one can be chosen again
  message.focus();
});
message.addEventListener("paste", (event) => {
  const files = event.clipboardData?.files ?? [];
  // What is copied from a document is text, and a picture of it.
  if (files.length === 0 || event.clipboardData?.types.includes("text/plain")) return;
  event.preventDefault();
  attachments.add(files);
});
document.addEventListener("dragover", (event) => {
  if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
});
document.addEventListener("drop", (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  attachments.add(event.dataTransfer.files);
});

/** @param {string} text Empty: there is nothing to say any more. */
function showNotice(text) {
  const [words, dismiss] = /** @type {HTMLElement[]} */ ([...notice.children]);
  words.textContent = text;
  dismiss.hidden = text === "";
}
notice.querySelector("button")?.addEventListener("click", () => {
  showNotice("");
  message.focus();
});

/** @param {string} text @returns {Promise<boolean>} Whether it is in the clipboard now. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // not over plain HTTP, and not without the user's leave
  }
}

// The connection.

/** @param {string} name */
function showModel(name) {
  const line = element("model");
  const strong = line.querySelector("strong");
  if (strong !== null) strong.textContent = name;
  line.hidden = false;
}

/** @type {ReturnType<typeof setInterval> | undefined} */
let counting;
let wasConnected = false;
let needsKey = false;
let needsShortLived = false;
/** Once for each time that one is let in: a key that isn't taken at once is no reason to ask for another. */
let mayBeStranger = true;

/** @param {import("./client/lib/index.js").Status} state */
function showConnection(state) {
  clearInterval(counting);
  needsKey = state.phase === "stopped" && (NO_KEY.has(state.code) || state.code === NOT_THIS_KIND);
  needsShortLived = state.phase === "stopped" && state.code === NOT_THIS_KIND;
  const [text, label] = connectionWords(state);
  // While the server is restarted, nothing is wrong: it isn't shown as if there were.
  element("connection").dataset.phase = state.phase === "waiting" && state.isPlanned ? "planned" : state.phase;
  // Set only when it changes: it is read out.
  const words = element("connection-text");
  if (words.textContent !== text) words.textContent = text;
  element("countdown").textContent = "";
  connect.textContent = label;
  connect.hidden = label === "";
  if (state.phase === "connected") wasConnected = mayBeStranger = true;
  if (state.phase === "waiting") {
    const count = () => {
      const seconds = Math.max(1, Math.ceil((state.until - Date.now()) / 1_000));
      element("countdown").textContent = ` in ${seconds} s`;
    };
    count();
    counting = setInterval(count, 1_000);
  }
  if (needsKey) void comeIn();
}

/** @param {import("./client/lib/index.js").Status} state @returns {[string, string]} What to say, and the button's label. */
function connectionWords(state) {
  switch (state.phase) {
    case "connecting":
      return [wasConnected ? "Reconnecting" : "Connecting", ""];
    case "connected":
      return [state.isSaved ? "Connected" : "Connected. What is said isn't saved for the moment", ""];
    case "waiting":
      return [`${state.reason} ${wasConnected ? "Reconnecting" : "Trying again"}`.trim(), "Now"];
    default:
      return needsKey
        ? ["Not connected: a key is needed", "Enter it"]
        : [`Not connected. ${state.phase === "stopped" ? state.reason : ""}`, "Try again"];
  }
}

connect.addEventListener("click", () => {
  if (needsKey) return askKey();
  message.focus(); // the button is about to go
  conversation.client.reconnect();
});
window.addEventListener("online", () => conversation.client.hurry());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") conversation.client.hurry();
});

// The key.

/** Come in as a stranger, where the server lets those in; else ask for a key. */
async function comeIn() {
  const refused = key;
  const given = mayBeStranger ? await keyForStranger() : { key: null, reason: "" };
  mayBeStranger = false;
  if (key !== refused || !needsKey) return; // one was entered meanwhile
  if (given.reason !== "") showNotice(given.reason);
  if (given.key === null) askKey();
  else useKey(given.key);
}

/** @param {string} another */
function useKey(another) {
  key = another;
  tab.set(KEY, key);
  conversation.client.useKey(key);
}

function askKey() {
  if (dialog.open) return;
  const complaint = tab.get(KEY) === null ? "" : "The server didn't accept the last one.";
  element("key-error").textContent = needsShortLived
    ? "It takes short-lived keys only, which begin with ek_."
    : complaint;
  keyInput.value = "";
  dialog.showModal();
}

dialog.addEventListener("submit", (event) => {
  event.preventDefault();
  dialog.close();
  message.focus();
  useKey(keyInput.value.trim());
});
element("key-cancel").addEventListener("click", () => dialog.close());

/** @returns {string} A key of this browser's own: in development mode the server takes any, and knows it again. */
function ownKey() {
  const known = browser.get(KEY);
  if (known !== null) return known;
  const key = `own_${randomId(32)}`; // else it may begin as short-lived keys do, by chance, and be refused for good
  browser.set(KEY, key);
  return key;
}

function doorUrl() {
  const url = new URL("/v1/realtime?model=default", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

/**
 * Storage that works, if only until the next reload, where the browser offers none.
 *
 * @param {() => Storage} open
 * @returns {import("./conversation.js").Storage}
 */
function storage(open) {
  /** @type {Map<string, string>} */
  const own = new Map();
  /** @type {Storage | null} */
  let store = null;
  try {
    store = open();
  } catch {
    // Forbidden by the user's settings.
  }
  return {
    get: (name) => own.get(name) ?? store?.getItem(name) ?? null,
    set(name, value) {
      if (value === null) own.delete(name);
      else own.set(name, value);
      try {
        if (value === null) store?.removeItem(name);
        else store?.setItem(name, value);
      } catch {
        // Full. This page still has it.
      }
    },
  };
}

showBusy("no");
if (matchMedia("(pointer: fine)").matches) message.focus();
