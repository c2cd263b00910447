/** A page with the AI SDK's hook for React, for `test_chats_in_browser`: as docs/ui.md has it. */

import { useChat } from "@ai-sdk/react";
import {
  DefaultChatTransport,
  WebSocketChatTransport,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
} from "ai";
import { StrictMode, createElement as h, useEffect, useMemo, useRef, useState } from "react";
import { createRoot } from "react-dom/client";

const fields = new URLSearchParams(location.search);
const base = fields.get("base");
const way = fields.get("way");
const id = "chat-1";
/** What a balancer in front goes by. */
const query = fields.has("affinity") ? `?affinity=${fields.get("affinity")}` : "";

/** Ask the page's own backend for a credential. */
const my = async (what) => (await (await fetch(`/my/${what}`)).json()).value;

const key = fields.get("key") ?? (await my("token"));
const headers = { authorization: `Bearer ${key}` };
const tools = [{ name: "add", description: "Adds 1.", parameters: { type: "object" } }];
const body = { unbroken: { tools } };

function transport() {
  if (way === "http") {
    const together = (url, options) => fetch(`${url}${query}`, options);
    return new DefaultChatTransport({ api: `${base}/v1/ui/chat`, headers, body, fetch: together });
  }
  const credential =
    way === "tickets"
      ? { params: async () => ({ ticket: await my("ticket") }) }
      : { protocols: ["realtime", `openai-insecure-api-key.${key}`] };
  return new WebSocketChatTransport({ url: `${base}/v1/ui/ws${query}`, body, ...credential });
}

/** The chat as the server has it, without what is being answered. */
const chat = async () => (await (await fetch(`${base}/v1/ui/chat/${id}${query}`, { headers })).json()).messages;

const text = (message) => message.parts.map((part) => (part.type === "text" ? part.text : "")).join("");

function Chat({ known }) {
  const [said, setSaid] = useState("");
  const [model, setModel] = useState("");
  const lost = useRef(false);
  const { messages, setMessages, sendMessage, status, error, stop, resumeStream, ...answering } = useChat({
    id,
    messages: known ?? [],
    resume: known !== undefined,
    transport: useMemo(transport, []),
    onToolCall: ({ toolCall }) => {
      if (toolCall.dynamic) return; // one of the server's, which runs it
      const { toolName: tool, toolCallId, input } = toolCall;
      answering.addToolOutput({ tool, toolCallId, output: input.a + 1 });
    },
    sendAutomaticallyWhen: (state) =>
      lastAssistantMessageIsCompleteWithToolCalls(state) ||
      lastAssistantMessageIsCompleteWithApprovalResponses(state),
    onFinish: ({ isDisconnect, isError }) => {
      lost.current = isDisconnect || (lost.current && isError);
    },
  });

  // Comes back, as long as the connection is lost. What ended meanwhile is had from the server.
  useEffect(() => {
    if (!lost.current || (status !== "error" && status !== "ready")) return;
    const again = async () => {
      if (status === "error") return resumeStream();
      lost.current = false;
      setMessages(await chat());
    };
    const timer = setTimeout(again, 200);
    return () => clearTimeout(timer);
  }, [status]);

  async function halt() {
    await fetch(`${base}/v1/ui/chat/${id}/stop${query}`, { method: "POST", headers });
    await stop();
  }

  function send(event) {
    event.preventDefault();
    sendMessage({ text: said }, model ? { body: { unbroken: { model } } } : undefined);
    setSaid("");
  }

  const asking = messages
    .flatMap(({ parts }) => parts)
    .filter(({ state, approval }) => state === "approval-requested" && approval);
  const decide = (approved) => () =>
    asking.forEach(({ approval }) => answering.addToolApprovalResponse({ id: approval.id, approved }));

  return h(
    "main",
    null,
    messages.map((message) => h("p", { key: message.id, className: message.role }, text(message))),
    h("form", { onSubmit: send }, h("input", { value: said, onChange: ({ target }) => setSaid(target.value) })),
    h("input", { id: "model", value: model, onChange: ({ target }) => setModel(target.value) }),
    h("button", { onClick: halt }, "Stop"),
    asking.length > 0 && h("button", { onClick: decide(true) }, "Allow"),
    asking.length > 0 && h("button", { onClick: decide(false) }, "Refuse"),
    h("output", null, status),
    h("pre", null, error?.message ?? ""),
  );
}

const root = createRoot(document.getElementById("root"));
root.render(h(StrictMode, null, h(Chat, { known: await chat() })));
