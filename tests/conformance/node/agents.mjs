/**
 * npm's @openai/agents-realtime, for `test_agents_realtime`.
 *
 * Usage: node agents.mjs SCENARIO URL [MESSAGE...]. Prints what was seen, as JSON.
 *
 * The SDK parses each frame by a strict schema, and silently takes one that doesn't fit for a
 * "generic" one: here each is parsed once more by its own parser, and those are counted.
 */

import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";
import { z } from "zod";

// The parser isn't exported.
const parser = "./node_modules/@openai/agents-realtime/dist/openaiRealtimeEvents.mjs";
const { parseRealtimeEvent } = await import(parser);

/** Seconds after which what is waited for will never come. */
const WAIT = 20;

const [scenario, url, ...messages] = process.argv.slice(2);
const frames = [];
const generic = [];
const errors = [];
const deltas = [];
const codes = [];
let history = [];
let wake = () => {};

function note(message) {
  const { data, raw, isGeneric } = parseRealtimeEvent(message);
  if (isGeneric || data === null) generic.push(String(message.data));
  frames.push(raw ?? JSON.parse(message.data));
  wake();
}

const add = tool({
  name: "add",
  description: "Adds 1.",
  parameters: z.object({ a: z.number() }),
  execute: async ({ a }) => String(a + 1),
});

/** Connect to *address*, and return the session, its transport, and whether that is lost. */
async function open(address, tools = []) {
  const transport = new OpenAIRealtimeWebSocket({ url: address });
  const line = { transport, isLost: false };
  transport.on("connection_change", (status) => {
    if (status !== "connecting") return;
    const { websocket } = transport.connectionState;
    websocket.addEventListener("message", note);
    websocket.addEventListener("close", ({ code }) => {
      codes.push(code);
      line.isLost = true;
      wake();
    });
  });
  const session = new RealtimeSession(new RealtimeAgent({ name: "Assistant", instructions: "Be brief.", tools }), {
    transport,
    model: "default",
    tracingDisabled: true,
  });
  session.on("error", ({ error }) => {
    errors.push(error.error?.code ?? error.message ?? JSON.stringify(error));
    wake();
  });
  session.on("history_updated", (updated) => (history = updated));
  transport.on("output_text_delta", ({ delta }) => {
    deltas.push(delta);
    wake();
  });
  await session.connect({ apiKey: process.env.KEY ?? "key", url: address });
  return Object.assign(line, { session });
}

async function when(holds) {
  const deadline = Date.now() + WAIT * 1000;
  while (!holds()) {
    await new Promise((resolve, reject) => {
      const late = () => reject(new Error(`It never came, after ${JSON.stringify(frames.at(-1))}`));
      const timer = setTimeout(late, deadline - Date.now());
      wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }
}

/** The address at which the session goes on, behind the last frame. */
function place() {
  const again = new URL(url);
  const { session: description } = frames.find(({ type }) => type === "session.created");
  again.searchParams.set("resume", description.unbroken.resume);
  again.searchParams.set("after", frames.at(-1).event_id);
  return String(again);
}

const ended = () => frames.filter(({ type }) => type === "response.done").length;

async function ask(session, message) {
  const before = ended();
  session.sendMessage(message);
  await when(() => ended() > before);
}

const scenarios = {
  /** One message after another. */
  async converse() {
    const { session } = await open(url);
    for (const message of messages) await ask(session, message);
    session.close();
  },

  /** Interrupts the first answer, and asks the second message. */
  async cancel() {
    const { session, transport } = await open(url);
    session.sendMessage(messages[0]);
    await when(() => deltas.join("").endsWith("word3"));
    transport.sendEvent({ type: "response.cancel" });
    await when(() => ended() === 1);
    await ask(session, messages[1]);
    session.close();
  },

  /** Has a function of its own called, which the SDK runs, and asks for the rest of the answer. */
  async tools() {
    const { session } = await open(url, [add]);
    await ask(session, messages[0]);
    await when(() => ended() === 2);
    session.close();
  },

  /** One message after another, some of which are refused: the SDK says each in one breath with its request. */
  async refused() {
    const { session } = await open(url);
    for (const message of messages) {
      const [before, refusals] = [ended(), errors.length];
      session.sendMessage(message);
      await when(() => ended() > before || errors.length >= refusals + Number(process.env.ERRORS));
    }
    session.close();
  },

  /** Isn't let in. */
  async refuse() {
    await open(url).catch(() => {});
    await when(() => errors.length > 0);
  },

  /** Asks for what isn't there, and goes on. */
  async mistake() {
    const { session, transport } = await open(url);
    transport.sendEvent({ type: "conversation.item.retrieve", item_id: "gone" });
    await when(() => errors.length === 1);
    await ask(session, messages[0]);
    session.close();
  },

  /** Has a tool of the server's called, and approves of that. The SDK asks for no response then. */
  async approve() {
    const { session, transport } = await open(url);
    let request = null;
    session.on("tool_approval_requested", (_context, _agent, { approvalItem }) => (request = approvalItem));
    await ask(session, messages[0]);
    await when(() => request !== null);
    await session.approve(request);
    transport.requestResponse();
    await when(() => ended() === 2);
    session.close();
  },

  /** One message after another; whenever its connection is lost, the application connects again. */
  async persist() {
    let line = await open(url);
    for (const [number, message] of messages.entries()) {
      line.session.sendMessage(message);
      for (;;) {
        await when(() => ended() > number || line.isLost);
        if (ended() > number) break;
        await new Promise((resolve) => setTimeout(resolve, 200));
        line = await open(place()).catch(() => line);
      }
    }
    line.session.close();
  },

  /** Has its connection closed in mid-answer, and connects again from there. It has no hook of its own. */
  async resume() {
    const { session } = await open(url);
    session.sendMessage(messages[0]);
    await when(() => codes.length === 1);
    const second = await open(place());
    await when(() => ended() === 1);
    second.session.close();
  },
};

await scenarios[scenario]();
const told = history.filter(({ type }) => type === "message").map(({ role, content }) => [role, content.map(({ text }) => text ?? "").join("")]);
process.stdout.write(JSON.stringify({ frames, generic, errors, deltas: deltas.join(""), codes, history: told }));
