/**
 * A page that speaks by openai's Realtime class for browsers, for `test_browser`. Bundled by esbuild.
 */

import OpenAI from "openai";
import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket";

import { Conversation } from "./conversation.mjs";

const ADD = {
  type: "function",
  name: "add",
  description: "Adds 1.",
  parameters: { type: "object", properties: { a: { type: "number" } } },
};

const answer = document.querySelector("#answer");
const status = document.querySelector("#status");
const errors = document.querySelector("#error");
const conversation = new Conversation();

/** Connect with *key*; again, each time so many milliseconds later. What comes is shown as it comes. */
window.open_conversation = async (baseURL, key, delay = 10) => {
  const client = new OpenAI({ apiKey: key, baseURL, dangerouslyAllowBrowser: true });
  const options = {
    model: "default",
    reconnect: true,
    reconnectInitialDelay: delay,
    reconnectMaxDelay: 10 * delay,
    buildRealtimeURL: conversation.address,
  };
  const realtime = new OpenAIRealtimeWebSocket(options, client);
  conversation.follow(realtime, true);
  realtime.on("response.created", () => (answer.textContent = errors.textContent = ""));
  realtime.on("response.output_text.delta", ({ delta }) => (answer.textContent += delta));
  realtime.on("response.done", ({ response }) => {
    if (!runFunctions(realtime, response)) status.textContent = response.status;
  });
  realtime.on("error", ({ message }) => errors.append(`${message}\n`));
  await conversation.until("session.created");
  return realtime.socket.protocol;
};

/** Run what *response* calls, and have the answer go on. Returns whether there was anything. */
function runFunctions(realtime, response) {
  const calls = response.output.filter(({ type }) => type === "function_call");
  for (const { call_id, arguments: given } of calls) {
    const item = { type: "function_call_output", call_id, output: String(JSON.parse(given).a + 1) };
    realtime.send({ type: "conversation.item.create", item });
  }
  if (calls.length > 0) realtime.send({ type: "response.create" });
  return calls.length > 0;
}

/** Offer the page's function to whatever answers. */
window.offer_functions = async () => {
  conversation.realtime.send({ type: "session.update", session: { type: "realtime", tools: [ADD] } });
  await conversation.until("session.updated");
};

/** Send an event as it is. */
window.send_event = (event) => conversation.realtime.send(event);

document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  status.textContent = "running";
  conversation.ask(document.querySelector("input").value);
});

document.querySelector("#stop").addEventListener("click", () => {
  conversation.realtime.send({ type: "response.cancel" });
});

window.ended = () => conversation.end();
window.report = () => conversation.report();
