/** A page for `test_chats_in_browser`, as docs/agui.md has it: AG-UI's agent over HTTP, or TanStack's chat. */

import { HttpAgent } from "@ag-ui/client";
import { ChatClient, fetchServerSentEvents, webSocket } from "@tanstack/ai-client";

const fields = new URLSearchParams(location.search);
const base = fields.get("base");
const way = fields.get("way");
const threadId = "thread-1";
/** What a balancer in front goes by. */
const query = fields.has("affinity") ? `?affinity=${fields.get("affinity")}` : "";

/** Ask the page's own backend for a credential. */
const my = async (what) => (await (await fetch(`/my/${what}`)).json()).value;

const key = fields.get("key") ?? (await my("token"));
const headers = { authorization: `Bearer ${key}` };
const model = document.querySelector("#model");
const status = document.querySelector("output");
const errors = document.querySelector("pre");

function show(messages) {
  document.querySelector("main").replaceChildren(
    ...messages.filter(({ text }) => text).map(({ role, text }) => {
      const line = document.createElement("p");
      line.className = role;
      line.textContent = text;
      return line;
    }),
  );
}

/** Offer to answer what waits for its user: *decide* is told; none: nothing waits. */
function offer(decide) {
  document.querySelector("section").replaceChildren(
    ...(decide ? ["Allow", "Refuse"] : []).map((name) => {
      const button = document.createElement("button");
      button.textContent = name;
      button.addEventListener("click", () => decide(name === "Allow"));
      return button;
    }),
  );
}

/** How the thread stands: what was said, and what is being answered. */
async function thread() {
  const { messages = [], activeRun } = await (await fetch(`${base}/v1/agui/${threadId}${query}`, { headers })).json();
  return { messages, activeRun };
}

const halt = () => fetch(`${base}/v1/agui/${threadId}/stop${query}`, { method: "POST", headers });

const chosen = () => (model.value ? { unbroken: { model: model.value } } : {});

/** Whether an error is of the connection, and not an answer of the server's. */
const isLost = (error) => error.name === "TypeError" || [502, 503].includes(error.status);

function withAgent({ messages, activeRun }) {
  const agent = new HttpAgent({ url: `${base}/v1/agui${query}`, threadId, headers, initialMessages: messages });
  const see = () => show(agent.messages.map(({ role, content }) => ({ role, text: content ?? "" })));
  const tools = [{ name: "add", description: "Adds 1.", parameters: { type: "object" } }];
  agent.subscribe({
    onMessagesChanged: see,
    onRunErrorEvent: ({ event }) => {
      errors.textContent = event.message;
    },
  });

  /** Run, and where the connection is lost, run the same again, from before. */
  async function persist(parameters) {
    const before = [...agent.messages];
    for (;;) {
      try {
        return await agent.runAgent({ tools, forwardedProps: chosen(), ...parameters });
      } catch (error) {
        if (!isLost(error)) throw error;
        agent.setMessages(before);
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  }

  /** Run the functions that were called and have no result. */
  function runFunctions() {
    const known = new Set(agent.messages.map(({ toolCallId }) => toolCallId));
    const calls = agent.messages.flatMap(({ toolCalls }) => toolCalls ?? []);
    const open = calls.filter(({ id, function: { name } }) => name === "add" && !known.has(id));
    for (const { id, function: called } of open) {
      const content = String(JSON.parse(called.arguments).a + 1);
      agent.addMessage({ id: `result-${id}`, role: "tool", toolCallId: id, content });
    }
    return open.length > 0;
  }

  async function run(parameters) {
    status.value = "running";
    errors.textContent = "";
    offer();
    try {
      await persist({ runId: crypto.randomUUID(), ...parameters });
      while (runFunctions()) await persist({ runId: crypto.randomUUID() });
    } catch (error) {
      errors.textContent = error.payload?.error?.message ?? error.message;
    }
    status.value = "ready";
    const asked = agent.pendingInterrupts;
    const answered = (approved) => (each) => ({ interruptId: each.id, status: "resolved", payload: { approved } });
    if (asked.length > 0) offer((approved) => run({ resume: asked.map(answered(approved)) }));
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

/** What connects TanStack's chat: over a WebSocket, with the same key each time or another ticket, or not. */
async function connection() {
  const about = `?threadId=${threadId}${query.replace("?", "&")}`;
  if (way === "sse") return fetchServerSentEvents(`${base}/v1/agui${about}`, { headers });
  const url = `${base.replace("http", "ws")}/v1/agui/ws${about}`;
  if (way === "ws") return webSocket(url, { protocols: ["realtime", `openai-insecure-api-key.${key}`] });
  const tickets = [await my("ticket"), await my("ticket")];
  return webSocket(() => {
    my("ticket").then((ticket) => tickets.push(ticket)); // for the next one
    return `${url}&ticket=${tickets.shift()}`;
  });
}

async function withChat({ messages, activeRun }) {
  const known = messages.map(({ id, role, content }) => ({ id, role, parts: [{ type: "text", content }] }));
  const text = ({ parts }) => parts.map((part) => (part.type === "text" ? part.content : "")).join("");
  const add = {
    __toolSide: "client",
    name: "add",
    description: "Adds 1.",
    inputSchema: { type: "object", properties: { a: { type: "number" } } },
    execute: ({ a }) => a + 1,
  };
  let chat;
  chat = new ChatClient({
    connection: await connection(),
    threadId,
    tools: [add],
    initialMessages: known,
    ...(activeRun && { initialResumeSnapshot: { pendingInterrupts: [], resumeState: { threadId, runId: activeRun.runId } } }),
    onMessagesChange: (all) => show(all.map((message) => ({ role: message.role, text: text(message) }))),
    onStatusChange: (now) => (status.value = ["ready", "error"].includes(now) ? "ready" : "running"),
    onErrorChange: (error) => (errors.textContent = error?.message ?? ""),
    onInterruptStateChange: () => {
      const asked = chat?.getInterrupts() ?? []; // told while it is made, too
      const decide = (approved) => asked.forEach((each) => each.resolveInterrupt({ approved }));
      offer(asked.length > 0 && decide);
    },
  });
  chat.attach(); // goes on with what is being answered
  show(known.map((message) => ({ role: message.role, text: text(message) })));
  return {
    send: (said) => chat.sendMessage(said, chosen()),
    stop: () => (way === "sse" ? halt() : chat.stop()),
  };
}

const page = await (way === "http" ? withAgent : withChat)(await thread());
document.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = document.querySelector("form input");
  page.send(input.value);
  input.value = "";
});
document.querySelector("#stop").addEventListener("click", () => page.stop());
if (!status.value) status.value = "ready";
