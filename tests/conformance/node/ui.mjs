/**
 * npm's ai, for `test_ai_sdk`: its chat, with its own transports, and what a page would show.
 *
 * Usage: node ui.mjs SCENARIO http|ws BASE_URL [MESSAGE...]. Prints what was seen, as JSON.
 */

import {
  AbstractChat,
  DefaultChatTransport,
  WebSocketChatTransport,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
} from "ai";
import WebSocket from "ws";

const [scenario, way, base, ...messages] = process.argv.slice(2);
const key = process.env.KEY ?? "alice";
const seen = { messages: [], errors: [], finishes: [], statuses: [], data: [], sockets: [] };

/** A socket with a key, which pages have as a ticket in the address. */
class KeyedSocket extends WebSocket {
  static latest;
  constructor(url, protocols) {
    super(url, protocols, { headers: { authorization: `Bearer ${key}` } });
    KeyedSocket.latest = this;
    this.on("error", ({ message }) => seen.sockets.push(message)); // the chat tells no reason
  }
}

const fetches = [];

/** fetch, whose streams can be cut as a network does. QUERY is what balancers are told. */
async function cuttable(url, options) {
  const cut = new AbortController();
  fetches.push(cut);
  const signal = options.signal == null ? cut.signal : AbortSignal.any([options.signal, cut.signal]);
  return fetch(`${url}${process.env.QUERY ?? ""}`, { ...options, signal });
}

function transport() {
  if (way === "ws") {
    return new WebSocketChatTransport({
      url: `${base.replace("http", "ws")}/v1/ui/ws${process.env.QUERY ?? ""}`,
      webSocket: KeyedSocket,
      body: { unbroken: extension },
    });
  }
  return new DefaultChatTransport({
    api: `${base}/v1/ui/chat`,
    headers: { authorization: `Bearer ${key}` },
    body: { unbroken: extension },
    fetch: cuttable,
  });
}

const extension = process.env.EXTENSION ? JSON.parse(process.env.EXTENSION) : undefined;

class State {
  messages = [];
  error = undefined;
  #status = "ready";
  #waiting = [];

  get status() {
    return this.#status;
  }

  set status(status) {
    this.#status = status;
    seen.statuses.push(status);
    this.#look();
  }

  pushMessage = (message) => this.#show([...this.messages, message]);
  popMessage = () => this.#show(this.messages.slice(0, -1));
  replaceMessage = (index, message) =>
    this.#show([...this.messages.slice(0, index), this.snapshot(message), ...this.messages.slice(index + 1)]);
  snapshot = (value) => structuredClone(value);

  #show(messages) {
    this.messages = messages;
    this.#look();
  }

  #look() {
    this.#waiting = this.#waiting.filter(({ holds, resolve }) => !(holds() && (resolve(), true)));
  }

  /** Wait until what is shown is so. */
  until(holds) {
    return holds() ? Promise.resolve() : new Promise((resolve) => this.#waiting.push({ holds, resolve }));
  }
}

class PlainChat extends AbstractChat {
  constructor(options = {}) {
    const state = new State();
    super({
      id: process.env.CHAT ?? "chat-1",
      state,
      transport: transport(),
      onError: (error) => seen.errors.push(error.message),
      onFinish: ({ finishReason, isAbort, isDisconnect, isError }) =>
        seen.finishes.push({ finishReason, isAbort, isDisconnect, isError }),
      onData: ({ type, data }) => seen.data.push({ type, data }),
      sendAutomaticallyWhen: (state) =>
        lastAssistantMessageIsCompleteWithToolCalls(state) ||
        lastAssistantMessageIsCompleteWithApprovalResponses(state),
      ...options,
    });
    this.shown = state;
  }
}

const text = (message) =>
  (message?.parts ?? []).flatMap((part) => (part.type === "text" ? [part.text] : [])).join("");

/** Wait until so much of an answer is shown. */
const shows = (chat, what) => chat.shown.until(() => text(chat.lastMessage).includes(what));

const scenarios = {
  /** One message after another. */
  async converse(chat) {
    for (const message of messages) await chat.sendMessage({ text: message });
  },

  /** Asks the first message of a model that isn't there, and the second as it should. */
  async mistake(chat) {
    await chat.sendMessage({ text: messages[0] }, { body: { unbroken: { model: "nobody" } } });
    await chat.sendMessage({ text: messages[1] });
  },

  /** Stops the first answer, and asks the second message. */
  async stop(chat) {
    const asked = chat.sendMessage({ text: messages[0] });
    await shows(chat, messages[1]);
    await chat.stop();
    if (way === "http") {
      const options = { method: "POST", headers: { authorization: `Bearer ${key}` } };
      await fetch(`${base}/v1/ui/chat/${chat.id}/stop`, options);
    }
    await asked;
    if (way === "ws") await stopped(chat);
    await chat.sendMessage({ text: messages[2] });
  },

  /** Loses the connection in mid-answer, and comes back. */
  async drop(chat) {
    const asked = chat.sendMessage({ text: messages[0] });
    await shows(chat, messages[1]);
    if (way === "ws") KeyedSocket.latest.terminate();
    else cutNetwork();
    await asked;
    await chat.resumeStream();
  },

  /** One message after another; whenever the connection is lost, it comes back: `onFinish` tells of that. */
  async persist() {
    let isLost = false;
    const chat = new PlainChat({
      onFinish: ({ isDisconnect, isError }) => {
        seen.finishes.push({ isDisconnect, isError });
        isLost = isDisconnect || isError;
      },
    });
    for (const message of messages) {
      await chat.sendMessage({ text: message });
      while (isLost) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        await chat.resumeStream();
      }
    }
    return chat;
  },

  /** Another page of the same chat, opened in mid-answer. */
  async reload(chat) {
    const asked = chat.sendMessage({ text: messages[0] });
    await shows(chat, messages[1]);
    const other = new PlainChat({ messages: chat.messages.slice(0, 1) });
    other.messages = chat.messages.slice(0, 1);
    await Promise.all([asked, other.resumeStream()]);
    seen.messages.push(other.messages);
  },

  /** Comes back to a chat in which nothing is being said. */
  async idle(chat) {
    await chat.resumeStream();
    await chat.sendMessage({ text: messages[0] });
    await chat.resumeStream();
  },

  /** Has the answer be made again. */
  async regenerate(chat) {
    await chat.sendMessage({ text: messages[0] });
    const { id } = chat.lastMessage;
    await chat.regenerate();
    seen.data.push({ type: "ids", data: [id, chat.lastMessage.id] });
  },

  /** Runs what is called, and goes on by itself. */
  async tool(_, options = {}) {
    const chat = new PlainChat({
      onToolCall: ({ toolCall }) => {
        chat.addToolOutput({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output: { sum: 3 } });
      },
      ...options,
    });
    await chat.sendMessage({ text: messages[0] });
    await chat.shown.until(() => chat.status === "ready" && text(chat.lastMessage) !== "");
    return chat;
  },

  /** Answers the server's question whether a tool may be called. */
  async approve(chat) {
    await chat.sendMessage({ text: messages[0] });
    for (const part of chat.lastMessage.parts) {
      if (part.state === "approval-requested") {
        await chat.addToolApprovalResponse({ id: part.approval.id, approved: messages[1] === "yes" });
      }
    }
    await chat.shown.until(() => chat.status === "ready" && text(chat.lastMessage) !== "");
  },

  /** Two chats on one connection, at once. */
  async both(chat) {
    const other = new PlainChat({ id: "chat-2", transport: chat.transport });
    await Promise.all([chat.sendMessage({ text: messages[0] }), other.sendMessage({ text: messages[1] })]);
    seen.messages.push(other.messages);
  },
};

/** Wait until the server has stopped: a stop over a WebSocket isn't answered. */
async function stopped(chat) {
  const options = { headers: { authorization: `Bearer ${key}` } };
  while ((await fetch(`${base}/v1/ui/chat/${chat.id}/stream`, options)).status !== 204);
}

/** Cut what runs as a network does: the SDK tells it by the error's type and words. */
function cutNetwork() {
  fetches.at(-1).abort(new TypeError("network error"));
}

const chat = new PlainChat();
const other = await scenarios[scenario](chat);
seen.messages.unshift((other ?? chat).messages);
console.log(JSON.stringify(seen));
process.exit();
