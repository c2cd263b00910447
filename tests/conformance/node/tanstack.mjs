/**
 * npm's @tanstack/ai-client, for `test_tanstack`: its chat over a WebSocket, and what a page would show.
 *
 * Usage: node tanstack.mjs SCENARIO ws|sse BASE_URL [MESSAGE...]. Prints what was seen, as JSON.
 */

import { ChatClient, fetchServerSentEvents, webSocket } from "@tanstack/ai-client";
import WebSocket from "ws";

const [scenario, way, base, ...messages] = process.argv.slice(2);
const key = process.env.KEY ?? "alice";
/** What a balancer in front goes by. */
const query = (process.env.QUERY ?? "").replace("?", "&");
const headers = { authorization: `Bearer ${key}` };
const seen = { messages: [], errors: [], chunks: [], urls: [], statuses: [], finishes: [], sockets: [] };

/** A socket with a key, which pages have as a ticket in the address. */
class KeyedSocket extends WebSocket {
  static latest;
  constructor(url, protocols) {
    super(url, protocols, { headers });
    KeyedSocket.latest = this;
    this.on("error", ({ message }) => seen.sockets.push(message)); // the chat tells no reason
    seen.urls.push(new URL(url).search);
  }
}

const fetches = [];

/** fetch, whose streams can be cut as a network does. */
async function cuttable(url, options) {
  const cut = new AbortController();
  fetches.push(cut);
  seen.urls.push(new URL(url).search);
  const signal = options.signal == null ? cut.signal : AbortSignal.any([options.signal, cut.signal]);
  return fetch(url, { ...options, signal });
}

function connection(at = base) {
  if (way === "sse") {
    return fetchServerSentEvents(`${at}/v1/agui?threadId=thread-1${query}`, { headers, fetchClient: cuttable });
  }
  const url = `${at.replace("http", "ws")}/v1/agui/ws?threadId=thread-1${query}`;
  return webSocket(url, { WebSocketImpl: KeyedSocket });
}

let waiting = [];

function look() {
  waiting = waiting.filter(({ holds, resolve }) => !(holds() && (resolve(), true)));
}

/** Wait until what is shown is so. */
const until = (holds) => (holds() ? Promise.resolve() : new Promise((resolve) => waiting.push({ holds, resolve })));

function open(options = {}) {
  return new ChatClient({
    connection: connection(),
    threadId: "thread-1",
    onChunk: (chunk) => {
      seen.chunks.push(chunk.type);
      const reason = chunk.metadata?.tanstack?.finishReason;
      if (reason && reason !== "stop") seen.finishes.push(reason);
    },
    onError: (error) => seen.errors.push(error.message),
    onMessagesChange: look,
    onStatusChange: (status) => {
      seen.statuses.push(status);
      look();
    },
    ...options,
  });
}

const add = {
  __toolSide: "client",
  name: "add",
  description: "Adds 1.",
  inputSchema: { type: "object", properties: { a: { type: "number" } } },
  execute: ({ a }) => a + 1,
};

const text = (message) =>
  (message?.parts ?? []).flatMap((part) => (part.type === "text" ? [part.content] : [])).join("");

const last = (chat) => chat.getMessages().at(-1);

const shows = (chat, what) => until(() => text(last(chat)).includes(what));

const chat = open(scenario === "tool" ? { tools: [add] } : {});

const scenarios = {
  /** One message after another. */
  async converse() {
    for (const message of messages) await chat.sendMessage(message);
  },

  /** Asks the first message of a model that isn't there, and the second as it should. */
  async mistake() {
    await chat.sendMessage(messages[0], { unbroken: { model: "nobody" } });
    await chat.sendMessage(messages[1]);
  },

  /** Stops the first answer, and asks the last message. */
  async stop() {
    const asked = chat.sendMessage(messages[0]);
    await shows(chat, messages[1]);
    chat.stop();
    if (way === "sse") await fetch(`${base}/v1/agui/thread-1/stop`, { method: "POST", headers });
    await asked;
    while ((await (await fetch(`${base}/v1/agui/thread-1`, { headers })).json()).activeRun !== null);
    await chat.sendMessage(messages[2]);
  },

  /** Loses the connection in mid-answer: the client comes back by itself. */
  async drop() {
    const asked = chat.sendMessage(messages[0]);
    await shows(chat, messages[1]);
    if (way === "ws") KeyedSocket.latest.terminate();
    else fetches.at(-1).abort(new TypeError("network error"));
    await asked;
    await until(() => chat.getStatus?.() !== "streaming");
  },

  /** Runs what is called, and goes on by itself. */
  async tool() {
    await chat.sendMessage(messages[0]);
    await shows(chat, messages[1]);
  },

  /** Answers the server's question whether a tool may be called. */
  async approve() {
    await chat.sendMessage(messages[0]);
    for (const interrupt of chat.getInterrupts()) {
      interrupt.resolveInterrupt({ approved: messages[1] === "yes" });
    }
    await shows(chat, "Returned");
  },

  /** Has the answer be made again. */
  async regenerate() {
    await chat.sendMessage(messages[0]);
    await chat.reload();
  },

  /** Another page of the same thread, opened in mid-answer. */
  async join() {
    const asked = chat.sendMessage(messages[0]);
    await shows(chat, messages[1]);
    const { activeRun } = await (await fetch(`${base}/v1/agui/thread-1`, { headers })).json();
    const joined = [];
    for await (const chunk of connection(process.env.OTHER).joinRun(activeRun.runId)) joined.push(chunk.delta ?? "");
    await asked;
    seen.joined = joined.join("");
  },
};

await scenarios[scenario]();
seen.messages = chat.getMessages().map((message) => ({ role: message.role, text: text(message), parts: message.parts }));
console.log(JSON.stringify(seen));
process.exit();
