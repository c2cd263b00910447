/** A page for `test_agui_browser`, as docs/agui.md has it: AG-UI's agent over HTTP, or TanStack's chat. */

import { HttpAgent } from "@ag-ui/client";
import { ChatClient, webSocket } from "@tanstack/ai-client";

const fields = new URLSearchParams(location.search);
const base = fields.get("base");
const key = fields.get("key");
const threadId = "thread-1";
const headers = { authorization: `Bearer ${key}` };

const shown = document.querySelector("main");
const status = document.querySelector("output");
const errors = document.querySelector("pre");

function show(messages) {
  shown.replaceChildren(
    ...messages.map(({ role, text }) => {
      const line = document.createElement("p");
      line.className = role;
      line.textContent = text;
      return line;
    }),
  );
}

/** How the thread stands: what was said, and what is being answered. */
const thread = async () => (await fetch(`${base}/v1/agui/${threadId}`, { headers })).json();

const halt = () => fetch(`${base}/v1/agui/${threadId}/stop`, { method: "POST", headers });

function overHttp({ messages, activeRun }) {
  const agent = new HttpAgent({ url: `${base}/v1/agui`, threadId, headers, initialMessages: messages });
  const see = () => show(agent.messages.map(({ role, content }) => ({ role, text: content ?? "" })));
  agent.subscribe({ onMessagesChanged: see });

  async function run(parameters) {
    status.value = "running";
    try {
      await agent.runAgent(parameters);
    } catch (error) {
      errors.textContent = error.message;
    }
    status.value = "ready";
  }

  see();
  if (activeRun) run({ runId: activeRun.runId }); // goes on with it
  return {
    stop: halt,
    send(text) {
      agent.addMessage({ id: crypto.randomUUID(), role: "user", content: text });
      return run();
    },
  };
}

function overWebSocket({ messages, activeRun }) {
  const protocols = ["realtime", `openai-insecure-api-key.${key}`];
  const url = `${base.replace("http", "ws")}/v1/agui/ws?threadId=${threadId}`;
  const known = messages.map(({ id, role, content }) => ({ id, role, parts: [{ type: "text", content }] }));
  const text = ({ parts }) => parts.map((part) => (part.type === "text" ? part.content : "")).join("");
  const chat = new ChatClient({
    connection: webSocket(url, { protocols }),
    threadId,
    initialMessages: known,
    ...(activeRun && { initialResumeSnapshot: { pendingInterrupts: [], resumeState: { threadId, runId: activeRun.runId } } }),
    onMessagesChange: (all) => show(all.map((message) => ({ role: message.role, text: text(message) }))),
    onStatusChange: (now) => (status.value = now === "ready" ? "ready" : "running"),
    onError: (error) => (errors.textContent = error.message),
  });
  chat.attach(); // goes on with what is being answered
  show(known.map((message) => ({ role: message.role, text: text(message) })));
  return { send: (said) => chat.sendMessage(said), stop: () => chat.stop() };
}

const page = (fields.get("way") === "ws" ? overWebSocket : overHttp)(await thread());
document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = document.querySelector("input");
  page.send(input.value);
  input.value = "";
});
document.querySelector("button").addEventListener("click", () => page.stop());
if (!status.value) status.value = "ready";
