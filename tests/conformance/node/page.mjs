/**
 * A page that speaks by openai's Realtime class for browsers, for `test_browser`. Bundled by esbuild.
 */

import OpenAI from "openai";
import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket";

import { Conversation } from "./conversation.mjs";

const answer = document.querySelector("#answer");
const status = document.querySelector("#status");
const conversation = new Conversation();

/** Connect with *key*. What comes is shown as it comes. */
window.open_conversation = async (baseURL, key) => {
  const client = new OpenAI({ apiKey: key, baseURL, dangerouslyAllowBrowser: true });
  const options = {
    model: "default",
    reconnect: true,
    reconnectInitialDelay: 10,
    reconnectMaxDelay: 10,
    buildRealtimeURL: conversation.address,
  };
  const realtime = new OpenAIRealtimeWebSocket(options, client);
  conversation.follow(realtime, true);
  realtime.on("response.created", () => (answer.textContent = ""));
  realtime.on("response.output_text.delta", ({ delta }) => (answer.textContent += delta));
  realtime.on("response.done", ({ response }) => (status.textContent = response.status));
  await conversation.until("session.created");
  return realtime.socket.protocol;
};

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
