/** A page with the AI SDK's hook for React, for `test_ai_sdk_browser`: as docs/ui.md has it. */

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, WebSocketChatTransport } from "ai";
import { StrictMode, createElement as h, useMemo, useState } from "react";
import { createRoot } from "react-dom/client";

const fields = new URLSearchParams(location.search);
const base = fields.get("base");
const key = fields.get("key");
const id = "chat-1";
const headers = { authorization: `Bearer ${key}` };

function transport() {
  if (fields.get("way") === "ws") {
    const protocols = ["realtime", `openai-insecure-api-key.${key}`];
    return new WebSocketChatTransport({ url: `${base}/v1/ui/ws`, protocols });
  }
  return new DefaultChatTransport({ api: `${base}/v1/ui/chat`, headers });
}

function Chat({ known }) {
  const [text, setText] = useState("");
  const { messages, sendMessage, status, error, stop } = useChat({
    id,
    messages: known,
    resume: true,
    transport: useMemo(transport, []),
  });

  async function halt() {
    await fetch(`${base}/v1/ui/chat/${id}/stop`, { method: "POST", headers });
    await stop();
  }

  function send(event) {
    event.preventDefault();
    sendMessage({ text });
    setText("");
  }

  return h(
    "main",
    null,
    messages.map((message) =>
      h(
        "p",
        { key: message.id, className: message.role },
        message.parts.map((part) => (part.type === "text" ? part.text : "")).join(""),
      ),
    ),
    h("form", { onSubmit: send }, h("input", { value: text, onChange: (event) => setText(event.target.value) })),
    h("button", { id: "stop", onClick: halt }, "Stop"),
    h("output", null, status),
    h("pre", null, error?.message ?? ""),
  );
}

const known = await fetch(`${base}/v1/ui/chat/${id}`, { headers });
createRoot(document.getElementById("root")).render(
  h(StrictMode, null, h(Chat, { known: (await known.json()).messages })),
);
